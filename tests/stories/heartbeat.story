# Polls of the API: how long a heartbeat counts, and by which interval.

== A heartbeat counts for a poll and a half, and a grace of 15 seconds
10:00     a heartbeat interval=15m | online heartbeat-only since=10:00 links=10:00 version=1 cause=heartbeat
10:15     a heartbeat interval=15m | online heartbeat-only since=10:00 changes=0 last=10:15
# One poll and a half later the grace begins; it still counts where the VPN is down.
10:37:29  * wait                   | online heartbeat-only heartbeat=online
10:37:30  * wait                   | online heartbeat-only heartbeat=timeout changes=0
10:37:44.999 * wait                | online heartbeat-only
10:37:45  * wait                   | offline none since=10:37:45 links=10:37:45 heartbeat=offline cause=heartbeat-expired
11:00     a heartbeat interval=15m | online heartbeat-only since=11:00 version=3

== The deadlines to the millisecond, the VPN down
10:00        a heartbeat interval=20m | online heartbeat-only heartbeat=online
10:29:59.999 * wait                   | online heartbeat-only heartbeat=online changes=0
10:30:00.000 * wait                   | online heartbeat-only heartbeat=timeout changes=0
10:30:14.999 * wait                   | online heartbeat-only heartbeat=timeout changes=0
10:30:15.000 * wait                   | offline none heartbeat=offline since=10:30:15 changes=1
10:30:15.001 * wait                   | offline none heartbeat=offline since=10:30:15 changes=0

== The deadlines to the millisecond, the VPN up
10:00        a vpn-opened v1 s1       | online vpn-only
10:00        a heartbeat interval=20m | online full
10:29:59.999 * wait                   | online full heartbeat=online changes=0
10:30:00.000 * wait                   | online vpn-only heartbeat=timeout links=10:30 cause=heartbeat-timed-out
10:30:14.999 * wait                   | online vpn-only heartbeat=timeout changes=0
10:30:15.000 * wait                   | online vpn-only heartbeat=offline changes=0

== A deadline that is no whole second
10:00:00.001 a heartbeat interval=11m | online heartbeat-only since=10:00:00.001
10:16:45.000 * wait                   | online heartbeat-only changes=0
10:16:45.001 * wait                   | offline none since=10:16:45.001

== A heartbeat a millisecond before it would have expired
10:00        a heartbeat interval=20m
10:30:14.999 a heartbeat interval=20m | online heartbeat-only changes=0 heartbeat=online
11:00:29.998 * wait                   | online heartbeat-only changes=0
11:00:29.999 * wait                   | offline none since=11:00:29.999

== A heartbeat in the very millisecond in which the last one expires
# The deadline comes first: the device was gone, and is back, both at that instant.
10:00    a heartbeat interval=20m
10:30:15 a heartbeat interval=20m | online heartbeat-only since=10:30:15 emits=offline/none,online/heartbeat-only version=3

== A heartbeat a millisecond after the last one has expired
10:00        a heartbeat interval=20m
10:30:15.001 a heartbeat interval=20m | online heartbeat-only since=10:30:15.001 emits=offline/none,online/heartbeat-only

== A heartbeat in the very millisecond of the timeout, the VPN up
10:00    a vpn-opened v1 s1
10:00    a heartbeat interval=20m | online full
10:30    a heartbeat interval=20m | online full links=10:30 since=10:00 emits=online/vpn-only,online/full

== A heartbeat that happened in time and arrives too late
# The record is later than the deadline: the device was shown offline by then,
# and the heartbeat takes effect from there on.
10:00    a heartbeat interval=20m
10:30:16 a heartbeat interval=20m at=10:30:14 | online heartbeat-only since=10:30:15 emits=offline/none,online/heartbeat-only last=10:30:14

== With the usual slack, what is late by less than two seconds is not late
09:00    * restart slack=2s
10:00    a heartbeat interval=20m             | online heartbeat-only
10:30:15 * wait                               | online heartbeat-only clock=10:30:13
10:30:16 a heartbeat interval=20m at=10:30:14 | online heartbeat-only changes=0

== With the usual slack, the deadline is noticed two seconds late, and not dated so
09:00        * restart slack=2s
10:00        a heartbeat interval=20m
10:30:16.999 * wait                   | online heartbeat-only changes=0
10:30:17     * wait                   | offline none since=10:30:15 cause=heartbeat-expired

== The interval is the heartbeat's, else the device's, else the fleet's, else the default
10:00 a registered f       | configuring none
10:00 a heartbeat          | online heartbeat-only
10:22:45 * wait            | offline none since=10:22:45
11:00 * fleet-settings f interval=1h
11:00 a heartbeat          | online heartbeat-only
12:30 * wait               | online heartbeat-only heartbeat=timeout
12:30:15 * wait            | offline none since=12:30:15
13:00 a settings interval=20m
13:00 a heartbeat          | online heartbeat-only
13:30:15 * wait            | offline none since=13:30:15
14:00 a heartbeat interval=2h | online heartbeat-only
17:00:15 * wait            | offline none since=17:00:15

== The default interval is fifteen minutes
10:00        a heartbeat | online heartbeat-only
10:22:29.999 * wait      | heartbeat=online
10:22:30     * wait      | heartbeat=timeout
10:22:44.999 * wait      | online heartbeat-only
10:22:45     * wait      | offline none since=10:22:45

== An interval of a second is taken for the minimum of ten minutes
10:00        a heartbeat interval=1s | online heartbeat-only
10:14:59.999 * wait                  | heartbeat=online
10:15        * wait                  | heartbeat=timeout
10:15:14.999 * wait                  | online heartbeat-only
10:15:15     * wait                  | offline none since=10:15:15

== The minimum goes for settings as for heartbeats
10:00    a settings interval=1s
10:00    a heartbeat              | online heartbeat-only
10:15:14 * wait                   | online heartbeat-only
10:15:15 * wait                   | offline none since=10:15:15

== An interval of just the minimum, and one of a second more
10:00       a heartbeat interval=600s
10:00       b heartbeat interval=601s
10:15:15    * wait | a: offline none since=10:15:15 ; b: online heartbeat-only
10:15:16.499 * wait | b: online heartbeat-only
10:15:16.500 * wait | b: offline none since=10:15:16.500

== A device that polls once a day
10:00             a heartbeat interval=1d | online heartbeat-only
1d+10:00          a heartbeat interval=1d | online heartbeat-only changes=0
2d+21:59:59.999   * wait                  | online heartbeat-only heartbeat=online
2d+22:00          * wait                  | online heartbeat-only heartbeat=timeout
2d+22:00:15       * wait                  | offline none since=2d+22:00:15

== A device that polls once a day, across restarts
# Its heartbeat is written before it leaves the window that a restart replays.
10:00 a heartbeat interval=1d         | online heartbeat-only
1d+10:00 a heartbeat interval=1d      | online heartbeat-only changes=0
1d+12:00 * restart                    | online heartbeat-only since=10:00 changes=0
2d+21:00 * restart                    | online heartbeat-only since=10:00 changes=0
2d+22:00:15 * wait                    | offline none since=2d+22:00:15

== The longest interval, a week
10:00        a heartbeat interval=7d | online heartbeat-only
10d+22:00    * wait                  | online heartbeat-only heartbeat=timeout
10d+22:00:15 * wait                  | offline none since=10d+22:00:15

== The interval that a heartbeat carried goes before any setting
10:00    a registered f
10:00    a heartbeat interval=15m
10:05    a settings interval=3h
10:06    * fleet-settings f interval=3h
10:22:45 * wait                   | offline none since=10:22:45 cause=heartbeat-expired

== The interval that an earlier heartbeat carried is not kept
10:00    a heartbeat interval=2h
11:00    a heartbeat            | online heartbeat-only changes=0
11:22:45 * wait                 | offline none since=11:22:45

== A longer interval set while the deadline runs
10:00    a heartbeat
10:20    a settings interval=1h | online heartbeat-only changes=0
10:22:45 * wait                 | online heartbeat-only heartbeat=online
11:30:15 * wait                 | offline none since=11:30:15 cause=heartbeat-expired

== A longer interval set during the grace
10:00    a heartbeat
10:22:30 * wait                 | online heartbeat-only heartbeat=timeout
10:22:40 a settings interval=1h | online heartbeat-only heartbeat=online changes=0
11:30:15 * wait                 | offline none since=11:30:15

== A longer interval set during the grace, the VPN up
10:00    a vpn-opened v1 s1
10:00    a heartbeat
10:22:30 * wait                 | online vpn-only
10:22:40 a settings interval=1h | online full links=10:22:40 cause=settings-changed

== A shorter interval set while the deadline runs counts from the next poll on
10:00    a settings interval=1h
10:00    a heartbeat
10:05    a settings interval=10m | online heartbeat-only changes=0
10:15:15 * wait                  | online heartbeat-only changes=0
11:00    a heartbeat             | online heartbeat-only changes=0
11:15:15 * wait                  | offline none since=11:15:15 cause=heartbeat-expired

== Nobody is offline by an interval that it has not heard of
10:00 a registered f
10:00 a settings interval=2h
10:00 a heartbeat            | online heartbeat-only
11:00 a settings interval=10m | online heartbeat-only changes=0
11:01 * restart              | online heartbeat-only changes=0
11:10 a settings             | online heartbeat-only changes=0
11:20 * fleet-settings f interval=10m | online heartbeat-only changes=0
13:00:14 * wait              | online heartbeat-only
13:00:15 * wait              | offline none since=13:00:15 cause=heartbeat-expired

== Nobody is online again by an interval that it has not heard of
10:00 a registered f
10:00 a settings interval=10m
10:00 a heartbeat            | online heartbeat-only
10:30 * wait                 | offline none since=10:15:15
10:31 a settings interval=1d | offline none changes=0
10:32 * fleet-settings f interval=1d | offline none changes=0
10:33 * restart              | offline none changes=0
10:34 a heartbeat            | online heartbeat-only since=10:34

== Nor where nothing was set before: it had expired by the default
10:00 a registered f
10:00 a heartbeat            | online heartbeat-only
10:30 * wait                 | offline none since=10:22:45
10:31 a settings interval=1d | offline none changes=0
10:32 * restart              | offline none changes=0

== A fleet is shortened from a day to a quarter of an hour
10:00    * fleet-settings f interval=1d
10:00    a registered f
10:00    b registered f
10:00    a heartbeat
20:00    b heartbeat
21:00    * fleet-settings f interval=15m | a: online heartbeat-only changes=0 ; b: online heartbeat-only changes=0
1d+09:00 a heartbeat
1d+09:22:45 * wait | a: offline none since=1d+09:22:45 ; b: online heartbeat-only
2d+08:00:15 * wait | b: offline none since=2d+08:00:15

== A fleet is lengthened from a quarter of an hour to a day
10:00    * fleet-settings f interval=15m
10:00    a registered f
10:00    a heartbeat
10:05    * fleet-settings f interval=1d
10:22:45 * wait                       | offline none since=10:22:45
10:30    a heartbeat                  | online heartbeat-only
2d+10:00 * wait                       | offline none since=1d+22:30:15

== Shortened, and the setting is told before, after and with a poll that is told late
09:00    a settings interval=1h
10:00    a heartbeat                    | online heartbeat-only
10:30    a settings interval=10m
# A poll from before the shortening.
10:40    a heartbeat at=10:20           | online heartbeat-only changes=0 last=10:20
10:50    * restart                      | online heartbeat-only changes=0
11:50:14 * wait                         | online heartbeat-only
11:50:15 * wait                         | offline none since=11:50:15
# And one from after it.
12:00    a heartbeat at=11:55           | online heartbeat-only since=11:55
12:10:15 * wait                         | offline none since=12:10:15

== The setting of the time is told after the poll
09:00    a settings interval=10m
10:00    a heartbeat
10:05    a settings interval=1h at=09:30 | online heartbeat-only changes=0
10:06    * restart                      | online heartbeat-only changes=0
11:30:15 * wait                         | offline none since=11:30:15

== The setting of the time is told after the poll, and after a later setting
09:00    a settings interval=10m
10:00    a heartbeat
10:01    a settings interval=2h
10:05    a settings interval=1h at=09:30 | online heartbeat-only changes=0
10:06    * restart                      | online heartbeat-only changes=0
11:30:15 * wait                         | offline none since=11:30:15

== A fleet's setting of the time is told after the poll, and after a later one
09:00    a registered f
09:00    * fleet-settings f interval=10m
10:00    a heartbeat
10:01    * fleet-settings f interval=2h
10:05    * fleet-settings f interval=1h at=09:30 | online heartbeat-only changes=0
10:06    * restart                      | online heartbeat-only changes=0
11:30:15 * wait                         | offline none since=11:30:15

== Within the slack of a poll the longer interval counts
08:59    * restart slack=2s
09:00    a settings interval=1h
10:00    a heartbeat
10:00:01 a settings interval=10m
10:30    * wait                         | online heartbeat-only changes=0
11:30:17 * wait                         | offline none since=11:30:15
# And where it is lengthened.
12:00:00 a heartbeat
12:00:01 a settings interval=1h
12:20    * wait                         | online heartbeat-only
13:30:17 * wait                         | offline none since=13:30:15
# Outside it the one that held.
14:00    a heartbeat
14:00:03 a settings interval=10m
14:20    * wait                         | online heartbeat-only
15:00    a heartbeat
15:15:17 * wait                         | offline none since=15:15:15

== A device enrolled just now: it had polled before anything was set
10:00    a heartbeat                    | online heartbeat-only
10:00:30 * fleet-settings f interval=1d
10:01    a registered f                 | online heartbeat-only
10:02    * restart                      | online heartbeat-only changes=0
1d+10:00 * wait                         | online heartbeat-only changes=0
1d+22:00:15 * wait                      | offline none since=1d+22:00:15

== Enrolled just now into a fleet with a shorter interval: the default counts
10:00    * fleet-settings f interval=10m
10:00    a heartbeat
10:01    a registered f
10:15:15 * wait                         | online heartbeat-only
10:22:45 * wait                         | offline none since=10:22:45

== The default is changed over a restart, and counts where nothing was set
10:00    a heartbeat
10:00    b settings interval=1h
10:00    b heartbeat
10:10    * restart default=40m          | a: online heartbeat-only changes=0 ; b: online heartbeat-only changes=0
11:00:15 * wait | a: offline none since=11:00:15 ; b: online heartbeat-only
11:30:15 * wait | b: offline none since=11:30:15

== Device before fleet before default, each taken away
10:00    a registered f
10:00    * fleet-settings f interval=2h
10:00    a settings interval=1h
10:00    a heartbeat
10:10    a settings                     | online heartbeat-only changes=0
10:20    * fleet-settings f             | online heartbeat-only changes=0
11:00    a heartbeat                    | online heartbeat-only changes=0
11:22:45 * wait                         | offline none since=11:22:45

== The longest interval, a year and a day
10:00         a heartbeat interval=366d | online heartbeat-only
40d+10:00     * restart                 | online heartbeat-only changes=0
549d+09:59    * wait                    | online heartbeat-only changes=0 heartbeat=online
549d+10:00    * wait                    | online heartbeat-only heartbeat=timeout
549d+10:00:15 * wait                    | offline none since=549d+10:00:15

== A fleet's interval shortened and lengthened while deadlines run
10:00    a registered f
10:00    b registered g
10:00    a heartbeat
10:00    b heartbeat
10:01    * fleet-settings f interval=10m
10:01    * fleet-settings g interval=1h
# Nothing was set when they polled: the longer of the default and of what came first.
10:15:15 * wait | a: online heartbeat-only ; b: online heartbeat-only
10:22:45 * wait | a: offline none since=10:22:45 cause=heartbeat-expired ; b: online heartbeat-only changes=0
11:30:15 * wait | b: offline none since=11:30:15

== A device's own setting shields it from its fleet's
10:00    a registered f
10:00    a settings interval=1h
10:00    a heartbeat
10:01    * fleet-settings f interval=10m
10:15:15 * wait                          | online heartbeat-only changes=0
11:30:15 * wait                          | offline none since=11:30:15

== Settings replace one another whole: what is absent is inherited
10:00    a registered f
10:00    * fleet-settings f interval=1h
10:00    a settings interval=10m
10:00    a heartbeat
10:10    a settings vpn=on               | online heartbeat-only changes=0
10:14    a heartbeat                     | online heartbeat-only changes=0
10:29:15 * wait                          | online heartbeat-only changes=0
11:44:15 * wait                          | offline none since=11:44:15

== A setting that is older than the one in force changes nothing
10:00    a settings interval=1h at=09:30
10:00    a heartbeat
10:01    a settings interval=10m at=09:00
10:15:15 * wait                          | online heartbeat-only changes=0

== Of two settings in one batch the later in the log holds
10:00    a settings interval=1h
10:00    a settings interval=10m
10:00    b settings interval=10m
10:00    b settings interval=1h
10:00    a heartbeat
10:00    b heartbeat
10:15:15 * wait | a: offline none since=10:15:15 ; b: online heartbeat-only

== An older heartbeat after a newer one says nothing
10:10    a heartbeat interval=15m          | online heartbeat-only since=10:10
10:11    a heartbeat interval=3h at=10:00  | online heartbeat-only changes=0 last=10:10
10:32:45 * wait                            | offline none since=10:32:45

== An older heartbeat after the device was lost does not bring it back
10:00    a heartbeat interval=15m
10:30    a heartbeat interval=3h at=09:59  | offline none since=10:22:45 emits=offline/none

== Of two heartbeats of the same instant the later in the log counts
10:00    a heartbeat interval=15m
10:00    a heartbeat interval=1h
10:00    b heartbeat interval=1h
10:00    b heartbeat interval=15m
10:22:45 * wait | a: online heartbeat-only ; b: offline none since=10:22:45
10:23    * restart | a: online heartbeat-only changes=0 ; b: offline none changes=0
11:30:15 * wait | a: offline none since=11:30:15

== A heartbeat that is read twice counts once
10:00    a heartbeat interval=15m at=10:00
10:05    a heartbeat interval=15m at=10:00 | online heartbeat-only changes=0 version=1
10:22:45 * wait                            | offline none since=10:22:45

== A heartbeat that arrives after its own deadline
11:00 a heartbeat interval=15m at=10:00   | offline none since=10:22:45 links=10:22:45 cause=heartbeat-expired changes=1
# What comes after the change that it would have prevented counts from then on.
11:10 a vpn-opened v1 s1 at=10:10         | online vpn-only since=10:22:45 links=10:22:45
# Older than what is known: nothing.
11:11 a heartbeat interval=15m at=09:00   | online vpn-only changes=0

== A heartbeat that brings a device back only into the past
# It polled at 10:30, and that is read when it has expired as well.
10:00    a heartbeat interval=15m
10:40    * wait                            | offline none since=10:22:45
11:00    a heartbeat interval=15m at=10:30 | offline none changes=0 since=10:22:45 last=10:30

== Each absence is dated by itself
10:00 a heartbeat
11:00 a heartbeat | online heartbeat-only since=11:00 emits=offline/none,online/heartbeat-only version=3
12:00 a heartbeat | online heartbeat-only since=12:00 emits=offline/none,online/heartbeat-only version=5
12:30 * wait      | offline none since=12:22:45 version=6

== Deadlines that passed before an event each make their own change, in order
10:00 a heartbeat interval=15m
10:01 a vpn-opened v1 s1
12:00 a heartbeat interval=15m    | online full emits=online/vpn-only,online/full
# The end of a lease has its place among them.
12:00 * instance-alive v1 lease=10m started=09:00
13:00 * wait | offline none since=12:22:45 emits=online/heartbeat-only,offline/none

== A longer interval told late, after the deadline that it would have put off
10:00    a heartbeat
10:30    * wait                            | offline none since=10:22:45
10:31    a settings interval=1h at=10:20   | online heartbeat-only since=10:22:45 cause=settings-changed

== A shorter interval told late, from after the poll: it counts from the next one on
10:00    a settings interval=1h
10:00    a heartbeat
11:00    a settings interval=10m at=10:05  | online heartbeat-only changes=0
11:30:15 * wait                            | offline none since=11:30:15

== A shorter interval told late, from before the poll: the deadline had passed by then
09:00    a settings interval=1h
10:00    a heartbeat
11:00    a settings interval=10m at=09:55  | offline none since=10:15:15 cause=heartbeat-expired

== A heartbeat told late, the VPN up: over by then, or still counting
10:00 a vpn-opened v1 s1
10:00 b vpn-opened v1 s1
10:15 b heartbeat interval=10m at=10:10 | b: online full links=10:10
11:00 a heartbeat interval=10m at=10:10 | a: online vpn-only links=10:00 changes=0

== A heartbeat from between two others, which would have bridged the gap, comes too late
10:00 a heartbeat interval=10m
10:30 a heartbeat interval=10m          | online heartbeat-only since=10:30 emits=offline/none,online/heartbeat-only
10:31 a heartbeat interval=1h at=10:10  | online heartbeat-only since=10:30 changes=0

== Switched off: the device says that it goes down
10:00    a heartbeat interval=15m | online heartbeat-only
10:05    a heartbeat going-away   | offline none since=10:05 links=10:05 heartbeat=offline cause=heartbeat-ended last=10:05
10:06    * restart                | offline none changes=0
10:22:45 * wait                   | offline none changes=0
10:30    a heartbeat interval=15m | online heartbeat-only since=10:30

== Switched off while the VPN is still up
10:00    a vpn-opened v1 s1
10:00    a heartbeat interval=15m | online full
10:05    a heartbeat going-away   | online vpn-only since=10:00 links=10:05 cause=heartbeat-ended
10:06    a vpn-closed v1 s1       | offline none since=10:06

== The last words of a device are told late
10:00    a heartbeat interval=15m
10:10    a heartbeat interval=15m | online heartbeat-only
# It had polled since: they were those of the run before.
10:11    a heartbeat going-away at=10:05 | online heartbeat-only changes=0
10:20    a heartbeat going-away at=10:12 | offline none since=10:12 cause=heartbeat-ended
10:21    a heartbeat interval=15m at=10:11 | offline none changes=0

== Told when it had been missed already
10:00    a heartbeat interval=15m
10:30    a heartbeat going-away at=10:05 | offline none since=10:22:45 emits=offline/none last=10:05

== A poll and the last words in one batch: the later in the log
10:00    a heartbeat interval=15m
10:05    a heartbeat interval=15m
10:05    a heartbeat going-away   | offline none since=10:05
10:06    b heartbeat going-away
10:06    b heartbeat interval=15m | b: online heartbeat-only since=10:06
10:07    * restart                | a: offline none changes=0 ; b: online heartbeat-only changes=0

== Last words are contact
10:00    a preregistered f        | inactive none
10:05    a heartbeat going-away   | offline none since=10:05 cause=heartbeat-ended
10:06    b deactivated
10:07    b heartbeat going-away   | b: offline none since=10:07

== Last words in the millisecond in which the last heartbeat expires
10:00    a heartbeat
10:22:45 a heartbeat going-away   | offline none since=10:22:45 emits=offline/none cause=heartbeat-expired

== Last words during an update end what shows
10:00    a heartbeat interval=15m
10:01    a update-started r1      | updating heartbeat-only
10:05    a heartbeat going-away   | offline none since=10:05
10:10    a heartbeat interval=15m | updating heartbeat-only since=10:10
