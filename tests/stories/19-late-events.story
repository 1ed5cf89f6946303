# A heartbeat that arrives after its own deadline: offline, since the deadline.
11:00 a heartbeat interval=15m at=10:00   | offline none since=10:22:45 links=10:22:45 cause=heartbeat-expired changes=1
# What comes after the change that it would have prevented counts from then on.
11:10 a vpn-opened v1 s1 at=10:10         | online vpn-only since=10:22:45 links=10:22:45
# Older than what is known: nothing.
11:11 a heartbeat interval=15m at=09:00   | online vpn-only changes=0
