"""How long a user process may go on without contact to the application master."""

from __future__ import annotations

_UNWELCOMED_S = 60.0
_GRACE_S = 5.0
TURN_S = 1.0
"""How often the owner of a lease looks at it, at least."""

_HICCUP_S = 2.0
_SILENCE_S = 15.0
"""After this long gRPC's pings have noticed that a connection is dead; until then it looks alive."""


class Lease:
    """Moments of the monotonic clock. The application master counts from the last beat that it heard, and may start
    a replacement when its lease is over: so the user process must be gone by then, by our own clock.

    `ends_at`: everything of the user is over, the executor ends. `terminate_at`: it gets TERM, `grace_s` before that.
    Before the first Welcome, `ends_at` bounds the search for the application master.
    """

    def __init__(self, now: float) -> None:
        self._lease_s = _UNWELCOMED_S
        self._lost = False
        self._turned_at = now
        self._woke_at, self._slept_s = now, 0.0
        self.ends_at = now + _UNWELCOMED_S

    def is_over(self, now: float) -> bool:
        """To be asked at least once in `TURN_S`: a longer pause means that this process did not run meanwhile."""
        pause_s = now - self._turned_at - TURN_S
        if pause_s > _HICCUP_S:
            self._woke_at, self._slept_s = now, pause_s
        self._turned_at = now
        return now >= self.ends_at

    def stood_still_s(self, now: float) -> float:
        """The latest of such pauses, if it ended within a lease."""
        return self._slept_s if now - self._woke_at < self._lease_s else 0.0

    def grant(self, lease_s: float, now: float) -> None:
        """The application master says how long."""
        self._lease_s = lease_s
        self.in_contact(now)

    @property
    def grace_s(self) -> float:
        """Seconds between TERM and KILL for a process that has to go in any case."""
        return min(_GRACE_S, self._lease_s / 4)

    @property
    def renewal_s(self) -> float:
        """How often contact must be noted, so that a lease never runs out while there is contact."""
        return self._lease_s / 4

    @property
    def terminate_at(self) -> float:
        """When the user process is asked to end."""
        return self.ends_at - self.grace_s

    def in_contact(self, now: float) -> None:
        """The connection works now."""
        self._lost = False
        self.ends_at = now + self._lease_s

    def lost(self, now: float) -> None:
        """It broke, or could not be made; the first of such news in a row counts."""
        if not self._lost:
            self._lost = True
            self.ends_at = min(self.ends_at, now + self._lease_s - min(_SILENCE_S, self._lease_s / 4))
