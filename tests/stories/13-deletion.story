# The deleted are not resurrected by late events, nor by contact.
10:00 a registered f
10:01 a heartbeat interval=15m       | online heartbeat-only version=2
10:10 a deleted                      | - emits=deleted cause=deleted
10:11 a heartbeat interval=15m       | - changes=0
10:12 a registered f at=10:09        | - changes=0
# Only a later registration brings it back, with what came since.
10:13 a registered g                 | online heartbeat-only since=10:13 links=10:13 version=4
10:14 a deleted                      | - emits=deleted
# After a day it is as if never heard of.
2d+10:00 * wait                      | - changes=0
2d+10:01 a heartbeat interval=15m    | online heartbeat-only version=1
