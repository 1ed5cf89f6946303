# A sender whose clock runs ahead gains nothing.
10:00 a heartbeat interval=15m at=23:00   | online heartbeat-only since=10:00
10:22:45 * wait                           | offline none since=10:22:45
