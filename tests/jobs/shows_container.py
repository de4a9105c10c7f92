"""Prints what a container has that its job asked for: a name for its user, shared memory."""

import os
import pwd

shared = os.statvfs("/dev/shm")
print(f"user {pwd.getpwuid(os.getuid()).pw_name}, {len(pwd.getpwall())} names", flush=True)
print(f"shared memory {shared.f_frsize * shared.f_blocks // 2**20} MB", flush=True)
