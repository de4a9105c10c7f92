"""Listens on the port in OWN_PORT, without any socket flag."""

import os
import socket

server = socket.socket()
server.bind(("", int(os.environ["OWN_PORT"])))
server.listen()
print("listening", flush=True)
