# Deadlines that passed before an event each make their own change, in order.
10:00 a heartbeat interval=15m
10:01 a vpn-opened v1 s1
12:00 a heartbeat interval=15m    | online full emits=online/vpn-only,online/full
# The end of a lease has its place among them.
12:00 * instance-alive v1 lease=10m started=09:00
13:00 * wait | offline none since=12:22:45 emits=online/heartbeat-only,offline/none
