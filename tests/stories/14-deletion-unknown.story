# The deletion of a device never heard of is remembered, and emits nothing.
10:00 a deleted                   | - changes=0
10:01 a heartbeat interval=15m at=09:59 | - changes=0
10:02 a heartbeat interval=15m    | - changes=0
10:03 a registered f              | online heartbeat-only since=10:03 version=1
