# An input that cannot be read expires nobody, also through other inputs.
10:00 a heartbeat interval=15m            | online heartbeat-only
10:10 * blocked heartbeats
11:00 * wait                              | online heartbeat-only changes=0
11:30 a vpn-opened v1 s1                  | online full since=10:00 links=11:30 changes=1
11:40 a vpn-closed v1 s1                  | online heartbeat-only links=11:40 changes=1
12:00 * unblocked heartbeats              | offline none
