# A restart changes nobody, and misses nothing.
10:00 a registered f
10:00 a heartbeat interval=15m        | online heartbeat-only version=2
10:00 b vpn-opened v1 s1              | online vpn-only
10:01 b vpn-closed v1 s0
10:14 a heartbeat interval=15m        | online heartbeat-only changes=0
10:20 * restart                       | a: online heartbeat-only since=10:00 changes=0 ; b: online vpn-only changes=0
10:20 * fleet-frozen f
10:21 * restart                       | a: frozen heartbeat-only since=10:20 changes=0
10:22 b vpn-opened v1 s0              | b: online vpn-only changes=0
10:23 b vpn-closed v1 s1              | b: offline none since=10:23
10:36:45 * wait                       | a: frozen none links=10:36:45
