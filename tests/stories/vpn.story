# VPN sessions, and the instances that hold them.

== Both links, either, none
10:00 a heartbeat interval=15m  | online heartbeat-only
10:05 a vpn-opened v1 s1        | online full since=10:00 links=10:05 cause=vpn-opened vpn=up
# The timeout counts as missing where the VPN is up.
10:22:30 * wait                 | online vpn-only since=10:00 links=10:22:30 cause=heartbeat-timed-out
10:22:45 * wait                 | online vpn-only changes=0 heartbeat=offline
10:30 a heartbeat interval=15m  | online full links=10:30
10:40 a vpn-closed v1 s1        | online heartbeat-only links=10:40 cause=vpn-closed vpn=down
10:50 a vpn-opened v1 s2        | online full
10:52:45 * wait                 | online vpn-only
11:00 a vpn-closed v1 s2        | offline none since=11:00 links=11:00 cause=vpn-closed

== The VPN closed during the grace of the heartbeat leaves the heartbeat
10:00    a heartbeat interval=20m
10:00    a vpn-opened v1 s1
10:30:05 a vpn-closed v1 s1 | online heartbeat-only links=10:30:05 emits=online/vpn-only,online/heartbeat-only
10:30:15 * wait             | offline none since=10:30:15

== The VPN closed in the very millisecond in which the heartbeat expires
10:00    a heartbeat interval=20m
10:00    a vpn-opened v1 s1
10:30:15 a vpn-closed v1 s1 | offline none since=10:30:15 cause=vpn-closed

== A close ends its own session and no other, even when it comes first
10:00 a vpn-opened v1 s1           | online vpn-only since=10:00
10:05 a vpn-opened v1 s2           | online vpn-only changes=0
10:06 a vpn-closed v1 s1 at=10:04  | online vpn-only changes=0
10:10 a vpn-closed v1 s3           | online vpn-only changes=0
10:11 a vpn-opened v1 s3 at=10:09  | online vpn-only changes=0
10:20 a vpn-closed v1 s2           | offline none since=10:20
# Of s3 a later close is known.
10:21 a vpn-opened v1 s3 at=10:08  | offline none changes=0

== Overlapping sessions on one instance: the VPN is up until the last is closed
10:00 a vpn-opened v1 s1 | online vpn-only
10:10 a vpn-opened v1 s2 | online vpn-only changes=0
10:20 a vpn-opened v1 s3 | online vpn-only changes=0
10:30 a vpn-closed v1 s2 | online vpn-only changes=0
10:40 a vpn-closed v1 s1 | online vpn-only changes=0
10:50 a vpn-closed v1 s3 | offline none since=10:50 links=10:50

== The old session is closed after the new one was opened, as at a reconnection
10:00    a vpn-opened v1 s1 | online vpn-only
10:10    a vpn-opened v2 s2 | online vpn-only changes=0
10:12    a vpn-closed v1 s1 | online vpn-only changes=0 vpn=up

== Overlapping sessions on several instances
10:00 a vpn-opened v1 s1   | online vpn-only
10:10 a vpn-opened v2 s2   | online vpn-only
10:20 * instance-lost v1   | online vpn-only changes=0
10:30 a vpn-closed v2 s2   | offline none since=10:30 cause=vpn-closed

== Overlapping sessions, both instances lost
10:00 a vpn-opened v1 s1
10:10 a vpn-opened v2 s2
10:20 * instance-lost v2   | online vpn-only changes=0
10:30 * instance-lost v1   | offline none since=10:30 cause=vpn-instance-lost

== The same session id on two instances is two sessions
10:00 a vpn-opened v1 s1   | online vpn-only
10:01 a vpn-opened v2 s1   | online vpn-only changes=0
10:02 a vpn-closed v1 s1   | online vpn-only changes=0
10:03 a vpn-closed v2 s1   | offline none since=10:03

== The same session id of two devices is two sessions
10:00 a vpn-opened v1 s1
10:01 b vpn-opened v1 s1
10:02 a vpn-closed v1 s1   | a: offline none ; b: online vpn-only

== A close before its open: the device was there, and is gone
10:10 a vpn-closed v1 s1 at=10:05 | - changes=0
10:11 a vpn-opened v1 s1 at=10:01 | offline none changes=1 vpn=down since=10:05 links=10:05 cause=vpn-closed

== A close before its open, of a device that was only provisioned
10:00 a provisioned               | post-provisioning none
10:10 a vpn-closed v1 s1 at=10:05 | post-provisioning none changes=0
10:11 a vpn-opened v1 s1 at=10:01 | offline none changes=1 since=10:05 cause=vpn-closed
# It leaves nothing behind.
10:12 a vpn-opened v1 s1 at=10:02 | offline none changes=0
10:13 * restart                   | offline none changes=0

== An open that is told after its instance was declared lost
10:00 a provisioned
10:05 * instance-lost v1
10:06 a vpn-opened v1 s1 at=10:03 | offline none changes=1 since=10:05 cause=vpn-instance-lost

== An open that is told after its instance was started anew
10:00 a provisioned
10:05 * instance-alive v1 lease=1h started=10:04
10:06 a vpn-opened v1 s1 at=10:03 | offline none changes=1 since=10:04 cause=vpn-instance-lost

== An open that is told after the lease of its instance ran out
10:00 a provisioned
10:00 * instance-alive v1 lease=5m
10:06 a vpn-opened v1 s1 at=10:03 | offline none changes=1 since=10:05 cause=vpn-lease-expired
10:07 * instance-alive v1 lease=5m | online vpn-only since=10:07

== The lease ends in the millisecond in which the heartbeat times out, and in which it expires
10:00    * instance-alive v1 lease=1350s
10:00    * instance-alive v2 lease=1365s
10:00    a heartbeat
10:00    b heartbeat
10:00    a vpn-opened v1 s1
10:00    b vpn-opened v2 s1
10:22:30 * wait | a: online heartbeat-only links=10:22:30 ; b: online vpn-only links=10:22:30
10:22:45 * wait | a: offline none since=10:22:45 cause=heartbeat-expired ; b: offline none since=10:22:45 links=10:22:45

== A close and its open in one batch: the later in the log
10:00 a vpn-opened v1 s1   | online vpn-only
10:00 a vpn-closed v1 s1   | offline none since=10:00
10:00 b vpn-closed v1 s2   | b: - changes=0
10:00 b vpn-opened v1 s2   | b: online vpn-only since=10:00
# Sent again, over a restart.
10:01 * restart                   | a: offline none changes=0 ; b: online vpn-only changes=0
10:01 a vpn-opened v1 s1 at=10:00 | a: offline none changes=0
10:01 b vpn-closed v1 s2 at=10:00 | b: online vpn-only changes=0
10:01 a vpn-closed v1 s1 at=10:00 | a: offline none changes=0
10:01 b vpn-opened v1 s2 at=10:00 | b: online vpn-only changes=0

== A close of a session never seen does nothing
10:00 a vpn-closed v1 s9          | - changes=0
10:01 a vpn-opened v1 s1          | online vpn-only
10:02 a vpn-closed v1 s8          | online vpn-only changes=0
10:03 a vpn-closed v2 s1          | online vpn-only changes=0

== Opens and closes that are read twice
10:00 a vpn-opened v1 s1 at=10:00 | online vpn-only version=1
10:01 a vpn-opened v1 s1 at=10:00 | online vpn-only changes=0
10:05 a vpn-closed v1 s1 at=10:05 | offline none version=2 since=10:05
10:06 a vpn-closed v1 s1 at=10:05 | offline none changes=0
# The open once more, after the close, changes nothing; a later one opens again.
10:07 a vpn-opened v1 s1 at=10:00 | offline none changes=0
10:08 a vpn-opened v1 s1          | online vpn-only since=10:08
10:09 a vpn-closed v1 s1 at=10:05 | online vpn-only changes=0

== A session opened anew, earlier than its close that is still on its way
10:00 a vpn-opened v1 s1
10:10 a vpn-opened v1 s2 at=10:05
10:11 a vpn-closed v1 s1 at=10:04 | online vpn-only changes=0 since=10:00

== A lost instance takes its devices with it, and nobody else's
10:00 a vpn-opened v1 s1       | online vpn-only
10:00 b vpn-opened v2 s1       | online vpn-only
10:05 * instance-lost v1       | a: offline none since=10:05 cause=vpn-instance-lost ; b: online vpn-only changes=0
10:06 a vpn-opened v1 s2       | a: online vpn-only since=10:06
# What was opened before the loss does not count, whenever it arrives.
10:07 c vpn-opened v1 s3 at=10:04 | c: offline none changes=1 since=10:05

== An instance is lost and back with new sessions
10:00 a heartbeat interval=1d
10:00 a vpn-opened v1 s1              | online full
10:05 * instance-lost v1              | online heartbeat-only links=10:05 cause=vpn-instance-lost
10:06 * instance-alive v1 lease=1h    | online heartbeat-only changes=0
10:07 a vpn-opened v1 s2              | online full links=10:07
# A close of the old session does not touch the new one.
10:08 a vpn-closed v1 s1              | online full changes=0

== An open in the very millisecond of the loss does not count; one a millisecond later does
10:00        a vpn-opened v1 s1
10:05        * instance-lost v1
10:05        a vpn-opened v1 s2 | offline none since=10:05 changes=0
10:05:00.001 a vpn-opened v1 s3 | online vpn-only since=10:05:00.001

== A close that arrives after the instance was declared lost
10:00 a vpn-opened v1 s1
10:05 * instance-lost v1          | offline none since=10:05
10:06 a vpn-closed v1 s1 at=10:04 | offline none changes=0 since=10:05
10:07 a vpn-closed v1 s1          | offline none changes=0 since=10:05

== A loss that is told late takes no session that was opened after it
10:00 a vpn-opened v1 s1
10:10 a vpn-opened v1 s2             | online vpn-only
10:11 * instance-lost v1 at=10:05    | online vpn-only changes=0
10:20 a vpn-closed v1 s2             | offline none since=10:20

== An instance that is started anew ends the sessions of its last start
10:00 * instance-alive v1 lease=1h started=09:00
10:01 a vpn-opened v1 s1       | online vpn-only
10:10 * instance-alive v1 lease=1h started=10:08 | offline none since=10:08 cause=vpn-instance-lost
10:11 a vpn-opened v1 s2       | online vpn-only
# A late announcement of the old start says nothing.
10:12 * instance-alive v1 lease=1s started=09:00
10:20 * wait                   | online vpn-only changes=0

== A session opened in the very millisecond of the start counts
10:00        * instance-alive v1 lease=1h started=09:00
10:08        a vpn-opened v1 s1
10:08        b vpn-opened v1 s2 at=10:07:59.999
10:10        * instance-alive v1 lease=1h started=10:08 | a: online vpn-only ; b: offline none since=10:08

== A start that is announced for the future is not believed
10:00 * instance-alive v1 lease=1h started=09:00
10:01 a vpn-opened v1 s1                              | online vpn-only
10:02 * instance-alive v1 lease=1h started=23:00      | online vpn-only changes=0
10:03 a vpn-opened v1 s2                              | online vpn-only changes=0

== An announcement without a start belongs to the current one
10:00 * instance-alive v1 lease=10m started=09:00
10:01 a vpn-opened v1 s1                | online vpn-only
10:05 * instance-alive v1 lease=10m
10:12 * wait                            | online vpn-only changes=0
10:15 * wait                            | offline none since=10:15 cause=vpn-lease-expired

== A lease that runs out takes the sessions down at its very end
# A later announcement of the same start brings them back.
10:00 * instance-alive v1 lease=1m started=09:00
10:00:10 a vpn-opened v1 s1       | online vpn-only
10:00:30 * instance-alive v1 lease=1m started=09:00
10:01:29 * wait                   | online vpn-only changes=0
10:01:40 * wait                   | offline none since=10:01:30 cause=vpn-lease-expired
10:02 * instance-alive v1 lease=1m started=09:00 | online vpn-only since=10:02 cause=vpn-instance-alive
10:02:30 a vpn-closed v1 s1       | offline none since=10:02:30

== The end of a lease to the millisecond
10:00        * instance-alive v1 lease=60s
10:00        a vpn-opened v1 s1   | online vpn-only
10:00:59.999 * wait               | online vpn-only changes=0
10:01        * wait               | offline none since=10:01 cause=vpn-lease-expired

== A lease renewed in time, again and again
10:00    * instance-alive v1 lease=60s
10:00    a vpn-opened v1 s1
10:00:40 * instance-alive v1 lease=60s
10:01:20 * instance-alive v1 lease=60s
10:02    * instance-alive v1 lease=60s | online vpn-only changes=0 since=10:00
10:03    * wait                        | offline none since=10:03

== A lease renewed in the very millisecond of its end was over
10:00    * instance-alive v1 lease=60s
10:00    a vpn-opened v1 s1
10:01    * instance-alive v1 lease=60s | online vpn-only since=10:01 emits=offline/none,online/vpn-only

== A lease renewed late: gone from its end, back from the renewal
10:00    * instance-alive v1 lease=60s
10:00    a vpn-opened v1 s1
10:05    * instance-alive v1 lease=60s | online vpn-only since=10:05 emits=offline/none,online/vpn-only
10:06    * wait                        | offline none since=10:06

== A renewal that was given in time and arrives late
10:00    * instance-alive v1 lease=60s
10:00    a vpn-opened v1 s1
10:01:10 * instance-alive v1 lease=60s at=10:00:50 | online vpn-only emits=offline/none,online/vpn-only since=10:01
10:02:09 * wait                                    | online vpn-only
10:02:10 * wait                                    | offline none since=10:02:10

== A shorter lease announced later holds
10:00    * instance-alive v1 lease=1h
10:00    a vpn-opened v1 s1
10:10    * instance-alive v1 lease=60s | online vpn-only changes=0
10:11    * wait                        | offline none since=10:11

== A session opened while the lease is over waits for the next announcement
10:00    * instance-alive v1 lease=60s
10:05    a vpn-opened v1 s1            | offline none since=10:05
10:06    * instance-alive v1 lease=60s | online vpn-only since=10:06 cause=vpn-instance-alive

== An instance that never announced itself holds its sessions without a lease
10:00    a vpn-opened v1 s1 | online vpn-only
9d+10:00 * wait             | online vpn-only changes=0 since=10:00

== A close while the lease is over ends the session all the same
10:00    * instance-alive v1 lease=60s
10:00    a vpn-opened v1 s1
10:02    a vpn-closed v1 s1            | offline none since=10:01 emits=offline/none
10:03    * instance-alive v1 lease=60s | offline none changes=0

== Where the VPN is disabled by setting, the heartbeat alone is all there is
10:00 a registered f
10:00 a heartbeat interval=15m     | online heartbeat-only
10:05 a settings vpn=off           | online full links=10:05 cause=settings-changed
10:22:30 * wait                    | online full heartbeat=timeout changes=0
10:22:45 * wait                    | offline none since=10:22:45
# A session that is open all the same is contact, and up.
10:30 a vpn-opened v1 s1           | online vpn-only since=10:30
10:31 a heartbeat interval=15m     | online full
10:32 a vpn-closed v1 s1           | online full changes=0
10:33 a settings vpn=on            | online heartbeat-only links=10:33
10:34 a settings                   | online heartbeat-only changes=0
10:35 * fleet-settings f vpn=off   | online full links=10:35

== The VPN disabled while a session is open
10:00    a heartbeat interval=20m
10:00    a vpn-opened v1 s1    | online full
10:05    a settings vpn=off    | online full changes=0 vpn=up
# The session is up, so the timeout shows as it does elsewhere.
10:30    * wait                | online vpn-only links=10:30
10:31    a vpn-closed v1 s1    | offline none since=10:31

== The VPN disabled by the fleet, and enabled again for one device
10:00 * fleet-settings f vpn=off
10:00 a registered f
10:00 b registered f
10:00 a settings vpn=on
10:01 a heartbeat              | online heartbeat-only
10:01 b heartbeat              | online full

== The VPN disabled for a device that has no heartbeat
10:00 a registered f
10:00 a settings vpn=off       | configuring none
10:01 a vpn-opened v1 s1       | online vpn-only
10:02 a vpn-closed v1 s1       | offline none

== An open that is told after a later announcement of its instance
# The lease was in force all along: the announcement made no difference.
10:00    * instance-alive v1 lease=1m
10:00    a vpn-opened v1 s0
10:00:10 a vpn-closed v1 s0             | offline none since=10:00:10
10:00:30 * instance-alive v1 lease=1m
10:00:32 a vpn-opened v1 s1 at=10:00:29 | online vpn-only since=10:00:29 links=10:00:29 cause=vpn-opened

== The same beside a heartbeat
10:00    * instance-alive v1 lease=1m started=09:00
10:00    a heartbeat interval=1d
10:00:30 * instance-alive v1 lease=1m started=09:00
10:00:31 a vpn-opened v1 s1 at=10:00:29 | online full since=10:00 links=10:00:29 cause=vpn-opened

== A session that was closed while the lease was over, which is told when it is renewed
10:00    * instance-alive v1 lease=1m
10:00    a heartbeat interval=1d
10:00    a vpn-opened v1 s1             | online full
10:05    * instance-alive v1 lease=1h   | online full links=10:05 emits=online/heartbeat-only,online/full
10:06    a vpn-closed v1 s1 at=10:03    | online heartbeat-only links=10:05

== The first announcement of an instance, told when its lease is over
10:00    a vpn-opened v1 s1
10:30    * instance-alive v1 lease=5m at=10:10 | offline none since=10:15 cause=vpn-lease-expired

== A start of an instance that is told late
10:00    a vpn-opened v1 s1
10:30    * instance-alive v1 lease=5m started=10:10 at=10:12 | offline none since=10:10 cause=vpn-instance-lost

== Two sessions, and the lease of one instance runs out and is renewed
10:00    * instance-alive v1 lease=5m
10:00    a vpn-opened v1 s1
10:01    a vpn-opened v2 s2             | online vpn-only
10:06    * wait                         | online vpn-only changes=0
10:07    a vpn-closed v2 s2             | offline none since=10:07
10:08    * instance-alive v1 lease=5m   | online vpn-only since=10:08

== An instance that was lost and is alive again does not bring its sessions back
10:00    a vpn-opened v1 s1
10:01    * instance-lost v1             | offline none
10:02    * instance-alive v1 lease=5m   | offline none changes=0

== A session that is told of late, opened and closed while the heartbeat went on
10:00    a heartbeat interval=1d
10:30    a vpn-opened v1 s1 at=10:10    | online full links=10:10
10:31    a vpn-closed v1 s1 at=10:20    | online heartbeat-only links=10:20

== The VPN enabled again during the grace of the heartbeat
10:00    a settings vpn=off
10:00    a heartbeat                    | online full
10:22:40 a settings vpn=on              | online heartbeat-only links=10:22:40

== A fleet whose VPN was disabled, told late: since then, or since the contact
10:00    a registered f
10:00    b registered f
10:00    a heartbeat interval=1d
10:08    b heartbeat interval=1d
10:10    * fleet-settings f vpn=off at=10:05 | a: online full links=10:05 since=10:00 ; b: online full links=10:08

== A connection's name used again after a close
10:00 a vpn-opened v1 s1          | online vpn-only
10:10 a vpn-closed v1 s1          | offline none since=10:10
10:20 a vpn-opened v1 s1          | online vpn-only since=10:20
10:21 * restart                   | online vpn-only changes=0
10:30 a vpn-closed v1 s1          | offline none since=10:30
10:31 a vpn-opened v1 s1          | online vpn-only since=10:31

== A connection's name used again, the events in the wrong order
10:30 a vpn-opened v1 s1 at=10:20 | online vpn-only since=10:20
10:31 a vpn-closed v1 s1 at=10:10 | online vpn-only changes=0
10:32 a vpn-opened v1 s1 at=10:00 | online vpn-only changes=0
10:40 b vpn-closed v1 s1 at=10:30 | b: - changes=0
10:41 b vpn-opened v1 s1 at=10:20 | b: offline none since=10:30
10:42 b vpn-closed v1 s1 at=10:10 | b: offline none changes=0
10:43 b vpn-opened v1 s1 at=10:35 | b: online vpn-only since=10:35

== A connection's name used again a day later, and its close forgotten since
10:00          a vpn-opened v1 s1 | online vpn-only
10:10          a vpn-closed v1 s1 | offline none
1d+09:00       a vpn-opened v1 s1 | online vpn-only since=1d+09:00
# The close would be forgotten now. It was with the opening, and takes nothing along.
1d+10:10       * wait             | online vpn-only changes=0
1d+10:11       * restart          | online vpn-only changes=0
3d+10:00       * wait             | online vpn-only changes=0
3d+10:01       a vpn-closed v1 s1 | offline none since=3d+10:01
5d+10:00       a vpn-opened v1 s1 | online vpn-only since=5d+10:00

== A connection's name used again after a restart of its instance
10:00 * instance-alive v1 lease=1h started=09:00
10:00 a vpn-opened v1 1           | online vpn-only
10:10 * instance-alive v1 lease=1h started=10:09 | offline none since=10:09
10:11 a vpn-opened v1 1           | online vpn-only since=10:11
10:20 a vpn-closed v1 1           | offline none since=10:20
10:21 a vpn-opened v1 1           | online vpn-only since=10:21

== A connection's name used again after its instance was lost
10:00 a vpn-opened v1 1           | online vpn-only
10:05 * instance-lost v1          | offline none since=10:05
10:06 a vpn-opened v1 1           | online vpn-only since=10:06
10:07 * restart                   | online vpn-only changes=0

== A device that flaps under one name
10:00    a heartbeat interval=1d
10:00:01 a vpn-opened v1 a        | online full
10:00:02 a vpn-closed v1 a        | online heartbeat-only links=10:00:02
10:00:03 a vpn-opened v1 a        | online full links=10:00:03
10:00:03 a vpn-closed v1 a        | online heartbeat-only links=10:00:03
10:00:04 a vpn-opened v1 a        | online full links=10:00:04

== A change names the instance that made it
10:00 * instance-alive v1 lease=10m
10:00 a heartbeat interval=1d  | online heartbeat-only instance=-
10:01 a vpn-opened v1 s1       | online full cause=vpn-opened instance=v1
10:02 a vpn-opened v2 s2       | online full changes=0
10:03 a vpn-closed v1 s1       | online full changes=0
10:04 a vpn-closed v2 s2       | online heartbeat-only cause=vpn-closed instance=v2
10:05 a vpn-opened v1 s3       | online full instance=v1
10:10 * wait                   | online heartbeat-only cause=vpn-lease-expired instance=v1
10:11 * instance-alive v1 lease=10m | online full cause=vpn-instance-alive instance=v1
10:12 * instance-lost v1       | online heartbeat-only cause=vpn-instance-lost instance=v1
10:13 a frozen                 | frozen heartbeat-only instance=-

== A fleet without a VPN: switched off by default
09:00    * restart vpn=off
10:00    a registered f
10:00    a heartbeat                   | online full
10:01    a settings vpn=on             | online heartbeat-only links=10:01
10:02    a settings                    | online full links=10:02
10:03    * fleet-settings f vpn=on     | online heartbeat-only links=10:03
10:04    * fleet-settings f            | online full links=10:04
10:22:45 * wait                        | offline none since=10:22:45

== The default is changed over a restart: since the start
10:00    a heartbeat interval=1d       | online heartbeat-only
10:00    b settings vpn=on
10:00    b heartbeat interval=1d       | b: online heartbeat-only
10:10    * restart vpn=off             | a: online full links=10:10 cause=rules-changed ; b: online heartbeat-only changes=0
10:20    * restart vpn=on              | a: online heartbeat-only links=10:20 cause=rules-changed

== A take-over: the old connection's end is told after the new one began
10:00    a vpn-opened v1 a                 | online vpn-only
10:05    a vpn-opened v1 a                 | online vpn-only changes=0
10:05:01 a vpn-closed v1 a opened=10:00    | online vpn-only changes=0
10:06    * restart                         | online vpn-only changes=0
10:10    a vpn-closed v1 a opened=10:05    | offline none since=10:10 cause=vpn-closed

== A take-over in the worst order: end, new, old
10:05:01 a vpn-closed v1 a opened=10:00    | - changes=0
10:05:02 a vpn-opened v1 a at=10:05        | online vpn-only since=10:05
10:05:03 a vpn-opened v1 a at=10:00        | online vpn-only changes=0
10:05:04 b vpn-closed v1 b opened=10:00 at=10:05:01 | b: - changes=0
10:05:05 b vpn-opened v1 b at=10:00        | b: offline none since=10:05:01
10:05:06 b vpn-opened v1 b at=10:05        | b: online vpn-only since=10:05:01

== A take-over: the end without its opening's time ends the new one too
10:00    a vpn-opened v1 a
10:05    a vpn-opened v1 a
10:05:01 a vpn-closed v1 a                 | offline none since=10:05:01

== An end that names an opening of the future counts as its own time
10:00    a vpn-opened v1 a
10:05    a vpn-closed v1 a opened=11:00    | offline none since=10:05
10:06    a vpn-opened v1 a                 | online vpn-only since=10:06

== The opening itself, in the millisecond that its end names
10:00    a vpn-closed v1 a opened=10:00    | -
10:00    a vpn-opened v1 a                 | offline none since=10:00

== Sessions without a name
10:00    a vpn-opened v1 ""                | online vpn-only
10:01    b vpn-opened v1 ""                | b: online vpn-only
10:02    a vpn-closed v1 "" opened=10:00   | a: offline none since=10:02 ; b: online vpn-only changes=0
10:03    a vpn-opened v1 ""                | a: online vpn-only since=10:03
10:04    a vpn-opened v2 ""                | a: online vpn-only changes=0
10:05    * instance-lost v1                | a: online vpn-only changes=0 ; b: offline none since=10:05

== A list of who is on, told every fifteen seconds, until nobody tells of it
10:00        a vpn-opened v1 s1 lease=60s  | online vpn-only since=10:00
10:00:15     a vpn-opened v1 s1 lease=60s  | online vpn-only changes=0
10:00:30     a vpn-opened v1 s1 lease=60s  | online vpn-only changes=0
10:00:40     * restart                     | online vpn-only changes=0
10:01:29.999 * wait                        | online vpn-only changes=0
10:01:30     * wait                        | offline none since=10:01:30 cause=vpn-lease-expired instance=v1
10:02        * restart                     | offline none changes=0
10:05        a vpn-opened v1 s1 lease=60s  | online vpn-only since=10:05 cause=vpn-opened
10:06        * wait                        | offline none since=10:06

== The list is told late: the end is undone, no earlier than it was told
10:00        a vpn-opened v1 s1 lease=60s
10:01:10     a vpn-opened v1 s1 lease=60s at=10:00:50 | online vpn-only since=10:01 emits=offline/none,online/vpn-only
10:02:09.999 * wait                        | online vpn-only
10:02:10     * wait                        | offline none since=10:02:10

== A session with a lease is closed, and its name used again
10:00        a vpn-opened v1 s1 lease=60s
10:00:20     a vpn-closed v1 s1            | offline none since=10:00:20
10:00:30     a vpn-opened v1 s1 lease=60s at=10:00:10 | offline none changes=0
10:00:40     a vpn-opened v1 s1 lease=60s  | online vpn-only since=10:00:40
10:01:40     * wait                        | offline none since=10:01:40

== Who is on is asked for the first time: since the connection is
10:10        a vpn-opened v1 s1 opened=10:00 lease=60s | online vpn-only since=10:00
10:10:30     a vpn-opened v1 s1 opened=10:00 lease=60s | online vpn-only changes=0
10:11:30     * wait                        | offline none since=10:11:30
# The same connection again, after it was not told for a while: since it was told.
10:20        a vpn-opened v1 s1 opened=10:00 lease=60s | online vpn-only since=10:20
10:21        * wait                        | offline none since=10:21
# Another connection of that name: since it is.
10:30        a vpn-opened v1 s1 opened=10:25 lease=60s | online vpn-only since=10:25

== A connection that was closed is told once more by a list that is behind
10:00        a vpn-opened v1 s1 opened=10:00 lease=60s
10:00:30     a vpn-closed v1 s1 opened=10:00 | offline none since=10:00:30
10:00:35     a vpn-opened v1 s1 opened=10:00 lease=60s | offline none changes=0
10:00:40     * restart                     | offline none changes=0
10:00:50     a vpn-opened v1 s1 opened=10:00:45 lease=60s | online vpn-only since=10:00:45
10:00:51     a vpn-closed v1 s1 opened=10:00 | online vpn-only changes=0

== Telling again is contact at the time at which the connection began
10:00        a vpn-opened v1 s1 opened=10:00 lease=1h | online vpn-only
10:05        a deactivated                 | inactive vpn-only
10:06        a vpn-opened v1 s1 opened=10:00 lease=1h | inactive vpn-only changes=0
10:07        * restart                     | inactive vpn-only changes=0
10:08        a vpn-opened v1 s1 opened=10:07 lease=1h | online vpn-only since=10:07
# Without it, at its own.
10:10        a deactivated                 | inactive vpn-only
10:11        a vpn-opened v1 s1 lease=1h   | online vpn-only since=10:11

== A connection from before the deletion goes on
10:00        a registered f
10:00        a vpn-opened v1 s1 opened=10:00 lease=1h | online vpn-only
10:05        a deleted                     | -
10:06        a vpn-opened v1 s1 opened=10:00 lease=1h | - changes=0
10:07        a registered g                | online vpn-only since=10:07
10:08        * restart                     | online vpn-only changes=0

== The latest opening decides whether there is a lease
10:00        a vpn-opened v1 s1            | online vpn-only
10:05        a vpn-opened v1 s1 lease=60s  | online vpn-only changes=0
10:06        * wait                        | offline none since=10:06
10:07        a vpn-opened v1 s1            | online vpn-only since=10:07
12:00        * wait                        | online vpn-only changes=0
12:01        a vpn-opened v1 s1 lease=1h
12:02        a vpn-opened v1 s1 lease=60s
12:03        * wait                        | offline none since=12:03

== Two leases of one opening in one batch: the later in the log
10:00        a vpn-opened v1 s1 lease=60s
10:00        a vpn-opened v1 s1 lease=5m
10:00:01     * restart
10:04:59     * wait                        | online vpn-only changes=0
10:05        * wait                        | offline none since=10:05

== A lost instance, and a session that is told again after it
10:00        a vpn-opened v1 s1 opened=10:00 lease=1h
10:05        * instance-lost v1            | offline none since=10:05
10:06        a vpn-opened v1 s1 opened=10:00 lease=1h | online vpn-only since=10:06
10:10        a vpn-opened v1 s1 opened=10:00 lease=1h
# The loss of before, told late: it was heard of since.
10:11        * instance-lost v1 at=10:09   | online vpn-only changes=0
10:12        * restart                     | online vpn-only changes=0

== A session's lease and its instance's: the first that ends
10:00        * instance-alive v1 lease=5m
10:00        * instance-alive v2 lease=1m
10:00        a vpn-opened v1 s1 lease=2m
10:00        b vpn-opened v2 s1 lease=2m
10:01        * wait                        | a: online vpn-only ; b: offline none since=10:01
10:01:30     * instance-alive v2 lease=5m  | b: online vpn-only since=10:01:30
10:02        * wait                        | a: offline none since=10:02 ; b: offline none since=10:02

== A lease that ends while another session is up, and is taken up again
10:00        a heartbeat interval=1d
10:00        a vpn-opened v1 s1 lease=60s
10:00:30     a vpn-opened v2 s2            | online full
10:01        * wait                        | online full changes=0
10:05        a vpn-opened v1 s1 lease=60s  | online full changes=0
10:05:10     a vpn-closed v2 s2            | online full changes=0
10:05:20     * restart                     | online full changes=0
10:06        * wait                        | online heartbeat-only links=10:06 cause=vpn-lease-expired

== Told again seldom, over restarts: what was not written is replayed, and written in time
10:00        a vpn-opened v1 s1 lease=3h   | online vpn-only
12:00        a vpn-opened v1 s1 lease=3h   | online vpn-only changes=0
12:01        * restart                     | online vpn-only changes=0
12:45        * restart                     | online vpn-only changes=0
14:00        * restart                     | online vpn-only changes=0
14:59:59     * wait                        | online vpn-only changes=0
15:00        * wait                        | offline none since=15:00

== Leases end by the clock alone, not by what is read ahead of it
09:59        * restart slack=2s
10:00        a vpn-opened v1 s1 lease=60s
10:01:01     a heartbeat interval=1d       | online full since=10:00 links=10:01:01
10:01:02     * wait                        | online heartbeat-only links=10:01:01

== A device that was silent: handshakes only, no closes
10:00        a preregistered f             | inactive none
10:05        a vpn-opened v1 "" lease=3m   | online vpn-only since=10:05
10:07        a vpn-opened v1 "" lease=3m   | online vpn-only changes=0
10:10        * wait                        | offline none since=10:10

== A server whose clock is ten minutes slow
10:00    * instance-alive v1 lease=60s at=09:50
10:00:10 a vpn-opened v1 s1                          | online vpn-only
10:00:30 * instance-alive v1 lease=60s at=09:50:30
10:01:10 * restart                                   | online vpn-only changes=0
10:01:29 * wait                                      | online vpn-only changes=0
10:01:30 * wait                                      | offline none since=10:01:30 cause=vpn-lease-expired

== A server whose clock is slow by more than is allowed for
10:00    * instance-alive v1 lease=60s at=09:44
10:00:10 a vpn-opened v1 s1                          | offline none since=10:00:10
10:00:30 * instance-alive v1 lease=60s at=09:45:30   | online vpn-only since=10:00:10
10:01:30 * wait                                      | offline none since=10:01:30

== The same where the allowance is switched off
09:00    * restart delay=0s
10:00    * instance-alive v1 lease=60s at=09:50
10:00:10 a vpn-opened v1 s1                          | offline none since=10:00:10

== A server whose clock is set back by ten minutes
10:00    * instance-alive v1 lease=60s
10:00:10 a vpn-opened v1 s1                          | online vpn-only
10:00:45 * instance-alive v1 lease=60s at=09:50:45   | online vpn-only changes=0
10:01:30 * instance-alive v1 lease=60s at=09:51:30   | online vpn-only changes=0
10:02:30 * wait                                      | offline none since=10:02:30

== Announcements are read twice: the second says nothing
10:00    * instance-alive v1 lease=60s at=10:00
10:00    a vpn-opened v1 s1
10:00:50 * instance-alive v1 lease=60s at=10:00
10:01    * wait                                      | offline none since=10:01

== A relay that copies late says so, and the lease is over
10:00    a vpn-opened v1 s1
10:05    * instance-alive v1 lease=60s at=10:00 source=10:00 | offline none since=10:01
10:05:30 * instance-alive v1 lease=60s at=10:00:30 source=10:05:20 | online vpn-only
10:06:20 * wait                                      | offline none since=10:06:20

== An announcement that was a dead letter is not one of now
10:00    a vpn-opened v1 s1
10:05    * instance-alive v1 lease=60s at=10:00 replayed=yes | offline none since=10:01

== A lease is late by no more than the slack
09:00    * restart slack=2s
10:00    * instance-alive v1 lease=60s at=10:00
10:00:01 a vpn-opened v1 s1
10:00:31 * instance-alive v1 lease=60s at=10:00:30
10:01:32 * wait                                      | offline none since=10:01:30

== A lister of sessions whose clock is slow, and is then set back
10:00    a vpn-opened v1 s1 lease=60s at=09:55       | online vpn-only since=09:55
10:00:45 a vpn-opened v1 s1 lease=60s at=09:50:45    | online vpn-only changes=0
10:01:44 * restart                                   | online vpn-only changes=0
10:01:45 * wait                                      | offline none since=10:01:45

== What a forgotten instance had ended does not come back with a restart
10:00    a vpn-opened v1 s1
10:00    a heartbeat interval=7d                     | online full
10:05    * instance-lost v1                          | online heartbeat-only
1d+11:00 * wait                                      | online heartbeat-only changes=0
1d+11:01 * restart                                   | online heartbeat-only changes=0
2d+11:01 * restart                                   | online heartbeat-only changes=0

== Nor what had lapsed, when the instance is back after days
10:00    * instance-alive v1 lease=60s
10:00    a vpn-opened v1 s1
10:00    a heartbeat interval=7d
10:01    * wait                                      | online heartbeat-only
12:00    * instance-alive v1 lease=60s               | online full
12:01    * wait                                      | online heartbeat-only
3d+10:00 * instance-alive v1 lease=60s               | online heartbeat-only changes=0
3d+10:00:10 * restart                                | online heartbeat-only changes=0
3d+10:00:20 a vpn-opened v1 s2                       | online full

== A name used again after a restart of its instance, and the end of the old connection is told late
10:00 * instance-alive v1 lease=1h started=09:00
10:00 a vpn-opened v1 1                          | online vpn-only
10:10 * instance-alive v1 lease=1h started=10:09 | offline none since=10:09
10:11 a vpn-opened v1 1                          | online vpn-only since=10:11
# From before the restart, by its own time or by that of its opening.
10:12 a vpn-closed v1 1 at=10:08                 | online vpn-only changes=0
10:13 a vpn-closed v1 1 opened=10:00             | online vpn-only changes=0
10:14 * restart                                  | online vpn-only changes=0
10:15 a vpn-closed v1 1                          | offline none since=10:15

== A name used again after a restart of its instance, and the restart is told last
10:00 a vpn-opened v1 1                          | online vpn-only
10:08 b vpn-opened v1 1                          | b: online vpn-only
10:11 a vpn-opened v1 1                          | a: online vpn-only changes=0
10:12 * instance-alive v1 lease=1h started=10:09 | a: online vpn-only changes=0 ; b: offline none since=10:09
10:13 b vpn-opened v1 1                          | b: online vpn-only since=10:13

== A name used again days after its instance was lost, and forgotten
10:00    a heartbeat interval=30d
10:00    a vpn-opened v1 1                       | online full
10:05    * instance-lost v1                      | online heartbeat-only links=10:05
2d+10:00 * restart                               | online heartbeat-only changes=0
2d+10:01 a vpn-opened v1 1                       | online full links=2d+10:01
# Those of the first day are told again.
2d+10:02 * instance-lost v1 at=10:05             | online full changes=0
2d+10:03 a vpn-opened v1 1 at=10:00              | online full changes=0
2d+10:04 a vpn-closed v1 1 at=10:04              | online full changes=0
2d+10:05 * restart                               | online full changes=0

== A name is told with a lease once more after days
10:00    a vpn-opened v1 s1 lease=60s            | online vpn-only
10:01    * wait                                  | offline none since=10:01
2d+12:00 a vpn-opened v1 s1 lease=60s            | online vpn-only since=2d+12:00
2d+12:01 * wait                                  | offline none since=2d+12:01
2d+12:02 a vpn-opened v1 s1 at=10:00 lease=60s   | offline none changes=0

== Told again every half hour, over restarts, until nobody tells of it
10:00        a vpn-opened v1 s1 lease=1h         | online vpn-only since=10:00
10:30        a vpn-opened v1 s1 lease=1h         | online vpn-only changes=0
10:45        * restart                           | online vpn-only changes=0
11:00        a vpn-opened v1 s1 lease=1h         | online vpn-only changes=0
11:15        * restart                           | online vpn-only changes=0
11:30        a vpn-opened v1 s1 lease=1h         | online vpn-only changes=0
12:29:59.999 * restart                           | online vpn-only changes=0
12:30        * wait                              | offline none since=12:30 cause=vpn-lease-expired
12:31        * restart                           | offline none changes=0

== Told a last time while the process was down, and it starts when that is over
10:00        a vpn-opened v1 s1 lease=60s        | online vpn-only
10:00        b vpn-opened v1 s1 lease=60s        | b: online vpn-only
10:00:15     a vpn-opened v1 s1 lease=60s
10:00:20     * stopped
10:00:30     a vpn-opened v1 s1 lease=60s
10:05        * restart                           | a: offline none since=10:01:30 changes=1 ; b: offline none since=10:01 changes=1

== Two announcements of one instant: the later in the log
10:00    a vpn-opened v1 s1
10:00    b vpn-opened v2 s1
10:01    * instance-alive v1 lease=60s
10:01    * instance-alive v1 lease=5m
10:01    * instance-alive v2 lease=5m
10:01    * instance-alive v2 lease=60s
10:01:30 * restart                               | a: online vpn-only ; b: online vpn-only
10:02    * wait                                  | a: online vpn-only ; b: offline none since=10:02
10:06    * wait                                  | a: offline none since=10:06

== Announced and lost in one batch, in both orders: the loss stays
10:00 a vpn-opened v1 s1                         | a: online vpn-only
10:00 b vpn-opened v2 s1                         | b: online vpn-only
10:05 * instance-alive v1 lease=1h
10:05 * instance-lost v1                         | a: offline none since=10:05
10:05 * instance-lost v2
10:05 * instance-alive v2 lease=1h               | b: offline none since=10:05
# Sent again, over a restart.
10:06 * restart                                  | a: offline none changes=0 ; b: offline none changes=0
10:07 * instance-lost v2 at=10:05                | b: offline none changes=0
10:07 * instance-alive v2 lease=1h at=10:05      | b: offline none changes=0
10:08 b vpn-opened v2 s1                         | b: online vpn-only since=10:08

== Opened and closed again and again in one batch: what was seen is a duplicate
10:00 a vpn-opened v1 s1                         | online vpn-only
10:00 a vpn-closed v1 s1                         | offline none since=10:00
10:00 a vpn-opened v1 s1                         | offline none changes=0
10:01 a vpn-opened v1 s1                         | online vpn-only since=10:01

== A close that is told late names its instance, though the status has moved since
10:00    a heartbeat interval=24h
10:01    a vpn-opened v1 s1          | online full
10:03    a frozen                    | frozen full since=10:03
10:04    a vpn-closed v1 s1 at=10:02 | frozen heartbeat-only links=10:02 cause=vpn-closed instance=v1
