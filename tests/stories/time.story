# Time: what is evidence that it has passed, and what is not.

== An idle partition: nothing is written, and deadlines pass all the same
10:00    a heartbeat
10:22:44 * wait             | online heartbeat-only clock=10:22:44
10:22:45 * wait             | offline none since=10:22:45

== One busy input and two idle ones
10:00    a heartbeat
10:00    b vpn-opened v1 s1
10:22:45 b vpn-opened v1 s2 | a: offline none since=10:22:45 ; b: online vpn-only changes=0

== An input that cannot be read expires nobody, also through other inputs
10:00 a heartbeat interval=15m            | online heartbeat-only
10:10 * blocked heartbeats
11:00 * wait                              | online heartbeat-only changes=0 clock=10:00
11:30 a vpn-opened v1 s1                  | online full since=10:00 links=11:30 changes=1
11:40 a vpn-closed v1 s1                  | online heartbeat-only links=11:40 changes=1
12:00 * unblocked heartbeats              | offline none

== An input that cannot be read, and had heartbeats all along
10:00 a heartbeat
10:10 * blocked heartbeats
10:15 a heartbeat
10:30 a heartbeat
10:45 * wait                              | online heartbeat-only changes=0 last=10:00
10:46 * unblocked heartbeats              | online heartbeat-only changes=0 last=10:30 since=10:00
10:52:45 * wait                           | offline none since=10:52:45

== The lifecycle cannot be read: nobody expires, and links are still believed
10:00 a registered f
10:00 a heartbeat
10:05 * blocked lifecycle
10:06 a settings interval=1h
10:07 a vpn-opened v1 s1                  | online full since=10:00
10:08 a vpn-closed v1 s1                  | online heartbeat-only
10:40 * wait                              | online heartbeat-only changes=0
# The longer interval was written in time.
10:50 * unblocked lifecycle               | online heartbeat-only changes=0
11:30:15 * wait                           | offline none since=11:30:15

== The VPN sessions cannot be read: no lease ends
10:00 * instance-alive v1 lease=60s
10:00 a vpn-opened v1 s1                  | online vpn-only
10:00:30 * blocked vpn
10:00:50 * instance-alive v1 lease=60s
10:01:40 * instance-alive v1 lease=60s
10:02 * wait                              | online vpn-only changes=0
10:02:10 * unblocked vpn                  | online vpn-only changes=0
10:02:40 * wait                           | offline none since=10:02:40

== The process was stopped for a minute, and reads before it judges
10:00    a heartbeat interval=10m
10:14:30 * stopped
10:14:40 a heartbeat interval=10m
10:15:30 * resumed                        | online heartbeat-only changes=0 last=10:14:40

== The process was stopped for a minute, in which a device was lost
10:00    a heartbeat interval=10m
10:14:30 * stopped
10:15:30 * resumed                        | offline none since=10:15:15 changes=1

== A lag of hours makes nobody offline who kept polling
10:00 a heartbeat
10:05 * stopped
10:15 a heartbeat
10:30 a heartbeat
10:45 a heartbeat
11:00 a heartbeat
11:15 a heartbeat
11:30 a heartbeat
11:45 a heartbeat
12:00 a heartbeat
12:05 * resumed                           | online heartbeat-only changes=0 since=10:00 last=12:00

== A lag of hours: who stopped polling goes offline once, since the true deadline
10:00 a heartbeat
10:00 b heartbeat
10:05 * stopped
10:15 b heartbeat
10:30 b heartbeat
10:45 b heartbeat
11:00 b heartbeat
13:00 * resumed | a: offline none since=10:22:45 changes=1 ; b: offline none since=11:22:45 changes=1

== A lag of hours: who came back in between was away in between
10:00 a heartbeat
10:05 * stopped
11:00 a heartbeat
11:15 a heartbeat
11:20 * resumed | online heartbeat-only since=11:00 emits=offline/none,online/heartbeat-only

== A lag of hours: the three inputs are taken in the order of their times
# The close is read ahead of the heartbeats around it: no offline that never was.
10:00 a heartbeat
10:01 a vpn-opened v1 s1 | online full
10:05 * stopped
10:15 a heartbeat
10:25 a vpn-closed v1 s1
10:30 a heartbeat
10:31 a registered f
10:45 a heartbeat
10:50 * resumed          | online heartbeat-only since=10:00 links=10:25 emits=online/heartbeat-only,online/heartbeat-only cause=moved

== Killed, and started hours later
10:00 a registered f
10:00 a heartbeat
10:00 b heartbeat
10:05 * stopped
10:15 a heartbeat
10:30 a heartbeat
10:45 a heartbeat
11:00 * restart | a: online heartbeat-only since=10:00 changes=0 ; b: offline none since=10:22:45 changes=1

== A restart changes nobody, and misses nothing
10:00 a registered f
10:00 a heartbeat interval=15m        | online heartbeat-only version=2
10:00 b vpn-opened v1 s1              | online vpn-only
10:01 b vpn-closed v1 s0
10:14 a heartbeat interval=15m        | online heartbeat-only changes=0
10:20 * restart                       | a: online heartbeat-only since=10:00 changes=0 ; b: online vpn-only changes=0
10:20 * fleet-frozen f
10:21 * restart                       | a: frozen heartbeat-only since=10:20 changes=0
10:22 b vpn-opened v1 s0 at=10:00:30  | b: online vpn-only changes=0
10:23 b vpn-closed v1 s1              | b: offline none since=10:23
10:36:45 * wait                       | a: frozen none links=10:36:45

== A restart between the timeout and the expiry
10:00    a heartbeat
10:22:35 * wait                       | online heartbeat-only heartbeat=timeout
10:22:36 * restart                    | online heartbeat-only changes=0 heartbeat=timeout
10:22:45 * wait                       | offline none since=10:22:45 version=2

== A restart in the millisecond of a deadline
10:00    a heartbeat
10:22:45 * restart                    | offline none since=10:22:45 changes=1
10:22:45 * restart                    | offline none changes=0 version=2

== A restart while an input cannot be read
10:00 a heartbeat
10:10 * blocked heartbeats
10:15 a heartbeat
10:40 * restart                       | online heartbeat-only changes=0
10:41 * unblocked heartbeats          | offline none changes=1 last=10:15 since=10:37:45
10:42 * wait                          | offline none changes=0

== Started with other rules: what changes for that reason is no older than the start
10:00 a heartbeat                     | online heartbeat-only
10:20 * wait                          | online heartbeat-only
10:20 * restart default=1s            | offline none since=10:20 cause=rules-changed
10:25 a heartbeat                     | online heartbeat-only since=10:25

== Started with a longer tolerance
10:00 a heartbeat
10:30 * wait                          | offline none since=10:22:45
10:31 * restart tolerance=4           | online heartbeat-only since=10:31 cause=rules-changed
11:00:15 * wait                       | offline none since=11:00:15 cause=heartbeat-expired

== Started with a longer grace
10:00 a heartbeat
10:22:40 * wait                       | online heartbeat-only heartbeat=timeout
10:22:41 * restart grace=10m          | online heartbeat-only changes=0
10:32:30 * wait                       | offline none since=10:32:30

== A sender whose clock runs ahead gains nothing
10:00 a heartbeat interval=15m at=23:00   | online heartbeat-only since=10:00 last=10:00
10:22:45 * wait                           | offline none since=10:22:45

== A sender whose clock runs behind loses what it says it lost
10:00 a heartbeat interval=15m at=09:50   | online heartbeat-only since=09:50
10:12:45 * wait                           | offline none since=10:12:45

== Absurd timestamps from one device, and another beside it
10:00 a heartbeat                         | online heartbeat-only
10:01 b heartbeat at=9999999d+10:00       | b: online heartbeat-only since=10:01
10:02 c heartbeat at=-20000d+10:00        | c: offline none changes=1
10:03 d vpn-opened v1 s1 at=-99999d+10:00 | d: online vpn-only
10:04 e registered f at=9999999d+10:00    | e: configuring none since=10:04
10:05 * wait                              | a: online heartbeat-only changes=0 clock=10:05
10:22:45 * wait                           | a: offline none since=10:22:45
10:23:45 * wait                           | b: offline none since=10:23:45

== Without a time of its own, an event happened when it was written
10:00 a heartbeat                         | online heartbeat-only since=10:00
10:05 a deactivated                       | inactive heartbeat-only since=10:05
10:06 a heartbeat at=10:04                | inactive heartbeat-only changes=0
10:07 a heartbeat                         | online heartbeat-only since=10:07

== An open transaction on an input: the clock waits for what it may hold
10:00    a heartbeat
10:00    b vpn-opened v1 s1
10:10    * transaction-opened heartbeats
10:11    c heartbeat                      | c: - clock=10:10
10:30    * wait                           | a: online heartbeat-only changes=0 clock=10:10
# The others are read meanwhile.
10:31    b vpn-closed v1 s1               | b: offline none since=10:31
# It ends, and what it held is read.
10:32    * transaction-ended heartbeats   | a: offline none since=10:22:45 ; c: online heartbeat-only since=10:11
10:33:45 * wait                           | c: offline none since=10:33:45

== An open transaction that holds the heartbeat of a device
10:00    a heartbeat
10:10    * transaction-opened heartbeats
10:15    a heartbeat
10:30    * wait                           | online heartbeat-only changes=0 last=10:00
10:31    * transaction-ended heartbeats   | online heartbeat-only changes=0 last=10:15
10:37:45 * wait                           | offline none since=10:37:45

== An open transaction with nothing in it yet holds nobody
# Nothing was written since: the end of the input is where it was.
10:00    a heartbeat
10:10    * transaction-opened heartbeats
10:22:45 * wait                           | offline none since=10:22:45

== The broker's time is not known yet: nothing is judged by the host's clock
# As at a start: until the broker has stamped a record of ours, answers prove nothing.
10:00    a heartbeat
10:05    * broker-time unknown
10:30    * wait                           | online heartbeat-only changes=0
# What is written proves its own time, for its own input.
10:31    b vpn-opened v1 s1               | a: online heartbeat-only changes=0
10:40    * broker-time known              | a: offline none since=10:22:45

== The process takes the broker's clock to be an hour behind: it waits, and dates rightly
# As after its machine was asleep, until the next report.
10:00    a heartbeat
10:05    * broker-time late=1h
10:30    * wait                           | online heartbeat-only changes=0 clock=10:00
10:31    * broker-time known              | offline none since=10:22:45

== The process takes the broker's clock to be behind, and devices go on
10:00    a heartbeat
10:05    * broker-time late=1h
10:15    a heartbeat                      | online heartbeat-only changes=0 last=10:15
10:20    b heartbeat                      | b: online heartbeat-only since=10:20
10:25    * broker-time known              | a: online heartbeat-only changes=0

== The clock never goes back
10:00    a heartbeat
10:22:45 * wait                           | offline none clock=10:22:45
10:23    * broker-time late=1h            | offline none clock=10:22:45 changes=0
10:24    * wait                           | offline none clock=10:22:45 changes=0

== Stamped by senders: one that is far ahead carries nobody with it
09:59    * stamped-by-sender heartbeats
10:00    a heartbeat                      | online heartbeat-only since=10:00
10:00:59 * wait
# It counts as written when the input was last known to have ended.
10:01    b heartbeat stamped=23:00        | b: online heartbeat-only since=10:00:59
10:02    * wait                           | a: online heartbeat-only changes=0 clock=10:02
10:22:45 * wait                           | a: offline none since=10:22:45

== Stamped by senders: one that is a little ahead is believed, within the allowance
09:59    * stamped-by-sender heartbeats
10:00    a heartbeat
10:01    b heartbeat stamped=10:05        | b: online heartbeat-only
10:02    * wait                           | a: online heartbeat-only clock=10:02

== Stamped by senders: one that is far behind is late, and nothing else
09:59    * stamped-by-sender heartbeats
10:00    a heartbeat
10:01    b heartbeat stamped=08:00        | b: offline none since=08:22:45
10:02    a heartbeat                      | a: online heartbeat-only changes=0 clock=10:02

== Stamped by senders: the event's own time goes before the stamp, and not past it
09:59    * stamped-by-sender heartbeats
10:00    a heartbeat stamped=10:00 at=09:55   | online heartbeat-only since=09:55
10:01    b heartbeat stamped=10:01 at=12:00   | b: online heartbeat-only since=10:01

== Stopped while a lease and then a heartbeat ran out
10:00 * instance-alive v1 lease=10m
10:00 a vpn-opened v1 s1
10:00 a heartbeat
10:01 * stopped
11:00 * resumed | offline none since=10:22:45 emits=online/heartbeat-only,offline/none

== Killed while a lease ran out
10:00 * instance-alive v1 lease=10m
10:00 a vpn-opened v1 s1
10:01 * stopped
11:00 * restart | offline none since=10:10 cause=vpn-lease-expired

== An open transaction that holds the renewal of a lease
10:00 * instance-alive v1 lease=10m
10:00 a vpn-opened v1 s1
10:05 * transaction-opened vpn
10:06 * instance-alive v1 lease=10m
10:12 * wait                              | online vpn-only changes=0
10:13 * transaction-ended vpn             | online vpn-only changes=0
10:16 * wait                              | offline none since=10:16

== A fleet frozen on an input that cannot be read, across a restart
# The device was shown online at 10:03, so it is frozen from there on.
10:00 a registered f
10:01 * blocked lifecycle
10:02 * fleet-frozen f
10:03 a heartbeat                         | online heartbeat-only
10:04 * restart                           | online heartbeat-only changes=0
10:05 * unblocked lifecycle               | frozen heartbeat-only since=10:03
