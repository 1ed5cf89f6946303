# By which interval a heartbeat is judged, where that is told late, long ago, or in
# several places.

== The interval stays with its heartbeat, though what was set then is forgotten
10:00        * fleet-settings f interval=30d
10:00        a registered f
10:00        a heartbeat                    | online heartbeat-only
3d+10:00     * fleet-settings f interval=10m | online heartbeat-only changes=0
6d+10:00     * fleet-settings f interval=20m | online heartbeat-only changes=0
6d+11:00     a settings vpn=on              | online heartbeat-only changes=0
8d+11:00     a settings vpn=on              | online heartbeat-only changes=0
8d+12:00     * restart                      | online heartbeat-only changes=0
45d+10:00:14 * wait                         | online heartbeat-only
45d+10:00:15 * wait                         | offline none since=45d+10:00:15

== It stays where more was set since than is kept
10:00    a settings interval=1d
10:00:01 a heartbeat                        | online heartbeat-only
10:01    a settings interval=11m
10:02    a settings interval=12m
10:03    a settings interval=13m
10:04    a settings interval=14m
10:05    a settings interval=11m
10:06    a settings interval=12m
10:07    a settings interval=13m
10:08    a settings interval=14m
10:09    a settings interval=11m
10:10    a settings interval=12m
10:11    a settings interval=13m
10:12    a settings interval=14m
10:13    a settings interval=11m
10:14    a settings interval=12m
10:15    a settings interval=13m
10:16    a settings interval=14m
10:17    a settings interval=11m
10:18    a settings interval=12m
10:19    a settings interval=13m
10:20    a settings interval=14m            | online heartbeat-only changes=0
10:21    * restart                          | online heartbeat-only changes=0
1d+22:00:16 * wait                          | offline none since=1d+22:00:16

== A fleet is told of late, when the device has left it
09:00    * fleet-settings f interval=10m
09:00    a registered f
10:00    a heartbeat
10:05    a moved g                          | online heartbeat-only
10:06    * fleet-settings f interval=1h at=09:30 | online heartbeat-only changes=0
10:07    * restart                          | online heartbeat-only changes=0
11:30:15 * wait                             | offline none since=11:30:15

== It had been found missing, and had been told otherwise
09:00    * fleet-settings f interval=10m
09:00    a registered f
10:00    a heartbeat
10:05    a moved g                          | online heartbeat-only
10:30    * wait                             | offline none since=10:15:15
10:31    * fleet-settings f interval=1h at=09:30 | online heartbeat-only since=10:15:15
11:30:15 * wait                             | offline none since=11:30:15

== Moved to and fro, and a poll in between is told late
09:00    * fleet-settings f interval=10m
09:00    * fleet-settings g interval=1h
09:00    a registered f
10:00    a heartbeat
10:02    a moved g
10:04    a moved f
10:05    a heartbeat at=10:03               | online heartbeat-only last=10:03
10:06    * restart                          | online heartbeat-only changes=0
11:33:15 * wait                             | offline none since=11:33:15

== A poll that is replayed has the interval that it had
09:00    * fleet-settings f interval=1h
09:00    a registered f
10:00    a heartbeat
10:10    a heartbeat                        | online heartbeat-only changes=0
10:11    * restart                          | online heartbeat-only changes=0
10:12    * fleet-settings f interval=10m    | online heartbeat-only changes=0
10:13    * restart                          | online heartbeat-only changes=0
11:40:15 * wait                             | offline none since=11:40:15

== What was set before a deletion is not
09:00    a settings interval=1d
09:00    a registered
09:30    a heartbeat                        | online heartbeat-only
10:00    a deleted                          | -
10:01    a registered
10:02    a heartbeat                        | online heartbeat-only
10:24:45 * wait                             | offline none since=10:24:45

== Nor if the deletion is told late
09:00    a settings interval=1d
09:30    a registered
10:02    a heartbeat                        | online heartbeat-only
10:03    a registered at=10:01
10:04    a deleted at=10:00                 | online heartbeat-only
10:05    * restart                          | online heartbeat-only changes=0
10:24:45 * wait                             | offline none since=10:24:45

== Within the slack of the first setting the default counts too, as it is now
08:59    * restart slack=2s
10:00    a heartbeat                        | online heartbeat-only
10:00:01 a settings interval=20m            | online heartbeat-only changes=0
10:05    * restart slack=2s default=40m     | online heartbeat-only changes=0
11:00:16 * wait                             | online heartbeat-only
11:00:17 * wait                             | offline none since=11:00:15
# By the next poll it has heard of it.
12:00    a heartbeat                        | online heartbeat-only
12:30:17 * wait                             | offline none since=12:30:15

== Taken away within the slack: the default counts too
08:59    * restart slack=2s
09:00    a settings interval=10m
10:00    a heartbeat                        | online heartbeat-only
10:00:01 a settings                         | online heartbeat-only changes=0
10:22:46 * wait                             | online heartbeat-only
10:22:47 * wait                             | offline none since=10:22:45

== Enrolled just now, and set again: the first that was set counts
10:00    a heartbeat                        | online heartbeat-only
10:01    a settings interval=1h             | online heartbeat-only changes=0
10:02    a settings interval=2h             | online heartbeat-only changes=0
10:03    * restart                          | online heartbeat-only changes=0
11:30:15 * wait                             | offline none since=11:30:15

== Enrolled just now, and the first setting is told last
10:00    a heartbeat                        | online heartbeat-only
10:02    a settings interval=2h             | online heartbeat-only changes=0
10:03    a settings interval=1h at=10:01    | online heartbeat-only changes=0
10:04    * restart                          | online heartbeat-only changes=0
11:30:15 * wait                             | offline none since=11:30:15

== A poll that says how often it comes, and one that does not, by turns
10:00    a settings interval=20m
10:00    a heartbeat interval=2h            | online heartbeat-only
10:10    a heartbeat                        | online heartbeat-only changes=0
10:40:15 * wait                             | offline none since=10:40:15
11:00    a heartbeat                        | online heartbeat-only
11:10    a heartbeat interval=2h            | online heartbeat-only changes=0
14:10:15 * wait                             | offline none since=14:10:15

== Shortened by the device's setting after the poll, told in every order
10:40 a settings interval=1h at=09:00
10:40 b settings interval=1h at=09:00
10:40 c heartbeat at=10:00
10:40 d heartbeat at=10:00
10:40 e settings interval=10m at=10:30
10:40 f settings interval=10m at=10:30
10:41 a heartbeat at=10:00
10:41 b settings interval=10m at=10:30
10:41 c settings interval=1h at=09:00
10:41 d settings interval=10m at=10:30
10:41 e settings interval=1h at=09:00
10:41 f heartbeat at=10:00
10:42 a settings interval=10m at=10:30
10:42 b heartbeat at=10:00
10:42 c settings interval=10m at=10:30
10:42 d settings interval=1h at=09:00
10:42 e heartbeat at=10:00
10:42 f settings interval=1h at=09:00
10:43    * restart | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:14 * wait    | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:15 * wait    | a: offline none since=11:30:15 ; b: offline none since=11:30:15 ; c: offline none since=11:30:15 ; d: offline none since=11:30:15 ; e: offline none since=11:30:15 ; f: offline none since=11:30:15

== Lengthened by the device's setting after the poll, told in every order
# Where the poll was told first it was found missing by the default.
10:40 a settings interval=10m at=09:00
10:40 b settings interval=10m at=09:00
10:40 c heartbeat at=10:00
10:40 d heartbeat at=10:00
10:40 e settings interval=1h at=10:20
10:40 f settings interval=1h at=10:20
10:41 a heartbeat at=10:00
10:41 b settings interval=1h at=10:20
10:41 c settings interval=10m at=09:00
10:41 d settings interval=1h at=10:20
10:41 e settings interval=10m at=09:00
10:41 f heartbeat at=10:00
10:42 a settings interval=1h at=10:20
10:42 b heartbeat at=10:00
10:42 c settings interval=1h at=10:20
10:42 d settings interval=10m at=09:00
10:42 e heartbeat at=10:00
10:42 f settings interval=10m at=09:00
10:43 * restart | a: offline none since=10:15:15 ; b: offline none since=10:15:15 ; c: offline none since=10:22:45 ; d: offline none since=10:22:45 ; e: offline none since=10:15:15 ; f: offline none since=10:15:15
11:30:15 * wait | a: offline none changes=0 ; b: offline none changes=0 ; c: offline none changes=0 ; d: offline none changes=0 ; e: offline none changes=0 ; f: offline none changes=0

== Shortened by the fleet's setting after the poll, told in every order
08:00 a registered fa
08:00 b registered fb
08:00 c registered fc
08:00 d registered fd
08:00 e registered fe
08:00 f registered ff
10:40 * fleet-settings fa interval=1h at=09:00
10:40 * fleet-settings fb interval=1h at=09:00
10:40 c heartbeat at=10:00
10:40 d heartbeat at=10:00
10:40 * fleet-settings fe interval=10m at=10:30
10:40 * fleet-settings ff interval=10m at=10:30
10:41 a heartbeat at=10:00
10:41 * fleet-settings fb interval=10m at=10:30
10:41 * fleet-settings fc interval=1h at=09:00
10:41 * fleet-settings fd interval=10m at=10:30
10:41 * fleet-settings fe interval=1h at=09:00
10:41 f heartbeat at=10:00
10:42 * fleet-settings fa interval=10m at=10:30
10:42 b heartbeat at=10:00
10:42 * fleet-settings fc interval=10m at=10:30
10:42 * fleet-settings fd interval=1h at=09:00
10:42 e heartbeat at=10:00
10:42 * fleet-settings ff interval=1h at=09:00
10:43    * restart | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:14 * wait    | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:15 * wait    | a: offline none since=11:30:15 ; b: offline none since=11:30:15 ; c: offline none since=11:30:15 ; d: offline none since=11:30:15 ; e: offline none since=11:30:15 ; f: offline none since=11:30:15

== Lengthened by the fleet's setting after the poll, told in every order
08:00 a registered fa
08:00 b registered fb
08:00 c registered fc
08:00 d registered fd
08:00 e registered fe
08:00 f registered ff
10:40 * fleet-settings fa interval=10m at=09:00
10:40 * fleet-settings fb interval=10m at=09:00
10:40 c heartbeat at=10:00
10:40 d heartbeat at=10:00
10:40 * fleet-settings fe interval=1h at=10:20
10:40 * fleet-settings ff interval=1h at=10:20
10:41 a heartbeat at=10:00
10:41 * fleet-settings fb interval=1h at=10:20
10:41 * fleet-settings fc interval=10m at=09:00
10:41 * fleet-settings fd interval=1h at=10:20
10:41 * fleet-settings fe interval=10m at=09:00
10:41 f heartbeat at=10:00
10:42 * fleet-settings fa interval=1h at=10:20
10:42 b heartbeat at=10:00
10:42 * fleet-settings fc interval=1h at=10:20
10:42 * fleet-settings fd interval=10m at=09:00
10:42 e heartbeat at=10:00
10:42 * fleet-settings ff interval=10m at=09:00
10:43 * restart | a: offline none since=10:15:15 ; b: offline none since=10:15:15 ; c: offline none since=10:22:45 ; d: offline none since=10:22:45 ; e: offline none since=10:15:15 ; f: offline none since=10:15:15
11:30:15 * wait | a: offline none changes=0 ; b: offline none changes=0 ; c: offline none changes=0 ; d: offline none changes=0 ; e: offline none changes=0 ; f: offline none changes=0

== Shortened by a move after the poll, told in every order
08:00 * fleet-settings f interval=1h
08:00 * fleet-settings g interval=10m
10:40 a registered f at=09:00
10:40 b registered f at=09:00
10:40 c heartbeat at=10:00
10:40 d heartbeat at=10:00
10:40 e moved g at=10:05
10:40 f moved g at=10:05
10:41 a heartbeat at=10:00
10:41 b moved g at=10:05
10:41 c registered f at=09:00
10:41 d moved g at=10:05
10:41 e registered f at=09:00
10:41 f heartbeat at=10:00
10:42 a moved g at=10:05
10:42 b heartbeat at=10:00
10:42 c moved g at=10:05
10:42 d registered f at=09:00
10:42 e heartbeat at=10:00
10:42 f registered f at=09:00
10:43    * restart | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:14 * wait    | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:15 * wait    | a: offline none since=11:30:15 ; b: offline none since=11:30:15 ; c: offline none since=11:30:15 ; d: offline none since=11:30:15 ; e: offline none since=11:30:15 ; f: offline none since=11:30:15

== Lengthened by a move after the poll, told in every order
08:00 * fleet-settings f interval=10m
08:00 * fleet-settings g interval=1h
10:40 a registered f at=09:00
10:40 b registered f at=09:00
10:40 c heartbeat at=10:00
10:40 d heartbeat at=10:00
10:40 e moved g at=10:05
10:40 f moved g at=10:05
10:41 a heartbeat at=10:00
10:41 b moved g at=10:05
10:41 c registered f at=09:00
10:41 d moved g at=10:05
10:41 e registered f at=09:00
10:41 f heartbeat at=10:00
10:42 a moved g at=10:05
10:42 b heartbeat at=10:00
10:42 c moved g at=10:05
10:42 d registered f at=09:00
10:42 e heartbeat at=10:00
10:42 f registered f at=09:00
10:43 * restart | a: offline none since=10:15:15 ; b: offline none since=10:15:15 ; c: offline none since=10:22:45 ; d: offline none since=10:22:45 ; e: offline none since=10:15:15 ; f: offline none since=10:15:15
11:30:15 * wait | a: offline none changes=0 ; b: offline none changes=0 ; c: offline none changes=0 ; d: offline none changes=0 ; e: offline none changes=0 ; f: offline none changes=0

== Set twice before the poll: the later counts, told in every order
10:40 a settings interval=2h at=09:00
10:40 b settings interval=2h at=09:00
10:40 c heartbeat at=10:00
10:40 d heartbeat at=10:00
10:40 e settings interval=1h at=09:30
10:40 f settings interval=1h at=09:30
10:41 a heartbeat at=10:00
10:41 b settings interval=1h at=09:30
10:41 c settings interval=2h at=09:00
10:41 d settings interval=1h at=09:30
10:41 e settings interval=2h at=09:00
10:41 f heartbeat at=10:00
10:42 a settings interval=1h at=09:30
10:42 b heartbeat at=10:00
10:42 c settings interval=1h at=09:30
10:42 d settings interval=2h at=09:00
10:42 e heartbeat at=10:00
10:42 f settings interval=2h at=09:00
10:43    * restart | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:14 * wait    | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:15 * wait    | a: offline none since=11:30:15 ; b: offline none since=11:30:15 ; c: offline none since=11:30:15 ; d: offline none since=11:30:15 ; e: offline none since=11:30:15 ; f: offline none since=11:30:15

== Set for the device and for its fleet before the poll, told in every order
08:00 a registered fa
08:00 b registered fb
08:00 c registered fc
08:00 d registered fd
08:00 e registered fe
08:00 f registered ff
10:40 a settings interval=1h at=09:00
10:40 b settings interval=1h at=09:00
10:40 c heartbeat at=10:00
10:40 d heartbeat at=10:00
10:40 * fleet-settings fe interval=10m at=09:30
10:40 * fleet-settings ff interval=10m at=09:30
10:41 a heartbeat at=10:00
10:41 * fleet-settings fb interval=10m at=09:30
10:41 c settings interval=1h at=09:00
10:41 * fleet-settings fd interval=10m at=09:30
10:41 e settings interval=1h at=09:00
10:41 f heartbeat at=10:00
10:42 * fleet-settings fa interval=10m at=09:30
10:42 b heartbeat at=10:00
10:42 * fleet-settings fc interval=10m at=09:30
10:42 d settings interval=1h at=09:00
10:42 e heartbeat at=10:00
10:42 f settings interval=1h at=09:00
10:43    * restart | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:14 * wait    | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:15 * wait    | a: offline none since=11:30:15 ; b: offline none since=11:30:15 ; c: offline none since=11:30:15 ; d: offline none since=11:30:15 ; e: offline none since=11:30:15 ; f: offline none since=11:30:15

== Moved twice before the poll, told in every order
08:00 * fleet-settings f interval=2h
08:00 * fleet-settings g interval=1h
10:40 a registered f at=09:00
10:40 b registered f at=09:00
10:40 c heartbeat at=10:00
10:40 d heartbeat at=10:00
10:40 e moved g at=09:30
10:40 f moved g at=09:30
10:41 a heartbeat at=10:00
10:41 b moved g at=09:30
10:41 c registered f at=09:00
10:41 d moved g at=09:30
10:41 e registered f at=09:00
10:41 f heartbeat at=10:00
10:42 a moved g at=09:30
10:42 b heartbeat at=10:00
10:42 c moved g at=09:30
10:42 d registered f at=09:00
10:42 e heartbeat at=10:00
10:42 f registered f at=09:00
10:43    * restart | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:14 * wait    | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:15 * wait    | a: offline none since=11:30:15 ; b: offline none since=11:30:15 ; c: offline none since=11:30:15 ; d: offline none since=11:30:15 ; e: offline none since=11:30:15 ; f: offline none since=11:30:15

== Enrolled just now, and shortened: the first that was set, told in every order
10:20 a settings interval=1h at=10:05
10:20 b settings interval=1h at=10:05
10:20 c heartbeat at=10:00
10:20 d heartbeat at=10:00
10:20 e settings interval=10m at=10:10
10:20 f settings interval=10m at=10:10
10:20:30 a heartbeat at=10:00
10:20:30 b settings interval=10m at=10:10
10:20:30 c settings interval=1h at=10:05
10:20:30 d settings interval=10m at=10:10
10:20:30 e settings interval=1h at=10:05
10:20:30 f heartbeat at=10:00
10:21 a settings interval=10m at=10:10
10:21 b heartbeat at=10:00
10:21 c settings interval=10m at=10:10
10:21 d settings interval=1h at=10:05
10:21 e heartbeat at=10:00
10:21 f settings interval=1h at=10:05
10:22 * restart | a: online heartbeat-only since=10:00 ; b: online heartbeat-only since=10:00 ; c: online heartbeat-only since=10:00 ; d: online heartbeat-only since=10:00 ; e: online heartbeat-only since=10:00 ; f: online heartbeat-only since=10:00
11:30:14 * wait    | a: online heartbeat-only ; b: online heartbeat-only ; c: online heartbeat-only ; d: online heartbeat-only ; e: online heartbeat-only ; f: online heartbeat-only
11:30:15 * wait    | a: offline none since=11:30:15 ; b: offline none since=11:30:15 ; c: offline none since=11:30:15 ; d: offline none since=11:30:15 ; e: offline none since=11:30:15 ; f: offline none since=11:30:15

== The default is shortened over a restart: since the start, and not where something was set
10:00    a heartbeat
10:00    b settings interval=15m
10:00    b heartbeat
10:20    * wait                | a: online heartbeat-only ; b: online heartbeat-only
10:20    * restart default=10m | a: offline none since=10:20 cause=rules-changed ; b: online heartbeat-only changes=0
10:22:45 * wait                | b: offline none since=10:22:45
10:30    a heartbeat
10:45:15 * wait                | a: offline none since=10:45:15

== The default is shortened while nobody judges: since the deadline
10:00    a heartbeat           | online heartbeat-only
10:00    * stopped
10:20    * restart default=10m | offline none since=10:15:15 cause=heartbeat-expired

== The default is lengthened over a restart, when the heartbeat had expired
10:00    a heartbeat
10:00    b settings interval=10m
10:00    b heartbeat
10:30    * wait                | a: offline none since=10:22:45 ; b: offline none since=10:15:15
10:31    * restart default=1h  | a: online heartbeat-only since=10:31 cause=rules-changed ; b: offline none changes=0
11:30:15 * wait                | a: offline none since=11:30:15

== The default is changed to and fro, and what was set before the poll is told after that
10:00    a heartbeat
10:05    * restart default=10m            | online heartbeat-only changes=0
10:10    a settings interval=1h at=09:00  | online heartbeat-only changes=0
10:16    * restart default=15m            | online heartbeat-only changes=0
11:30:15 * wait                           | offline none since=11:30:15
