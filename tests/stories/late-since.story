# Late events, and since when what they made true has been true.

== A session whose close came first was open in between
10:00 a provisioned                        | post-provisioning none
10:40 a vpn-closed v1 s1 at=10:30          | post-provisioning none changes=0
10:41 a vpn-opened v1 s1 at=10:10          | offline none since=10:30 cause=vpn-closed

== So was one whose instance was lost meanwhile
11:00 b provisioned                        | post-provisioning none
11:10 * instance-lost v2
11:20 b vpn-opened v2 s1 at=11:05          | offline none since=11:10 cause=vpn-instance-lost

== A device that came to a frozen fleet is frozen since it came, whoever is late
12:00 c heartbeat interval=1h              | online heartbeat-only
12:20 c registered f1                      | online heartbeat-only changes=0
12:30 * fleet-frozen f1 allowance at=12:10 | frozen heartbeat-only since=12:20 cause=registered

== A late announcement brings a session back, and not from before it was opened
13:00 * instance-alive v3 lease=10m
13:00 d registered f2                      | configuring none
13:20 d vpn-opened v3 s1                   | offline none since=13:20 links=13:00
13:30 * instance-alive v3 lease=1h at=13:15 | online vpn-only since=13:20 links=13:20

== A setting that came when the heartbeat had expired already
14:00 e settings interval=1d               | - changes=0
14:01 e heartbeat at=13:30                 | offline none since=13:52:45 cause=heartbeat-expired

== Sessions that a restarted instance takes over come back with its announcement
15:00 * instance-alive v4 lease=1m
15:00:30 f vpn-opened v4 s1                | online vpn-only
15:02 * wait                               | offline none since=15:01
15:03 * instance-alive v4 lease=1h started=14:50 | online vpn-only since=15:03 cause=vpn-instance-alive
