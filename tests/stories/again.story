# What is sent again: each night as it is, a whole day once more, and batches of one time.

== A whole day is sent again, in order and from its end to its start
10:00 * fleet-settings f interval=1h
10:01 a registered f org=o
10:02 a heartbeat
10:03 a vpn-opened v1 s1
10:04 a frozen allowance
10:05 a unfrozen allowance
10:06 a moved g org=o
10:07 a update-started r1
10:08 a update-finished r1 outcome=succeeded
10:09 a vpn-closed v1 s1
10:10 a deactivated
10:11 a activated
10:12 a configuration-started
10:13 a configuration-finished
10:14 a settings vpn=off
10:15 a settings
10:16 * instance-lost v1
10:17 a vpn-opened v1 s1
10:18 a provisioned
10:19 * fleet-frozen g
10:20 * fleet-unfrozen g
10:21 a heartbeat interval=1d | online full since=10:21 links=10:17 fleet=g member=10:06
# In order.
11:00 * fleet-settings f interval=1h at=10:00 | a: online full changes=0
11:01 a registered f org=o at=10:01 | a: online full changes=0
11:02 a heartbeat at=10:02 | a: online full changes=0
11:03 a vpn-opened v1 s1 at=10:03 | a: online full changes=0
11:04 a frozen allowance at=10:04 | a: online full changes=0
11:05 a unfrozen allowance at=10:05 | a: online full changes=0
11:06 a moved g org=o at=10:06 | a: online full changes=0
11:07 a update-started r1 at=10:07 | a: online full changes=0
11:08 a update-finished r1 outcome=succeeded at=10:08 | a: online full changes=0
11:09 a vpn-closed v1 s1 at=10:09 | a: online full changes=0
11:10 a deactivated at=10:10 | a: online full changes=0
11:11 a activated at=10:11 | a: online full changes=0
11:12 a configuration-started at=10:12 | a: online full changes=0
11:13 a configuration-finished at=10:13 | a: online full changes=0
11:14 a settings vpn=off at=10:14 | a: online full changes=0
11:15 a settings at=10:15 | a: online full changes=0
11:16 * instance-lost v1 at=10:16 | a: online full changes=0
11:17 a vpn-opened v1 s1 at=10:17 | a: online full changes=0
11:18 a provisioned at=10:18 | a: online full changes=0
11:19 * fleet-frozen g at=10:19 | a: online full changes=0
11:20 * fleet-unfrozen g at=10:20 | a: online full changes=0
11:21 a heartbeat interval=1d at=10:21 | a: online full changes=0
11:30 * restart | a: online full since=10:21 links=10:17 fleet=g member=10:06 changes=0
# From its end to its start.
12:00 a heartbeat interval=1d at=10:21 | a: online full changes=0
12:01 * fleet-unfrozen g at=10:20 | a: online full changes=0
12:02 * fleet-frozen g at=10:19 | a: online full changes=0
12:03 a provisioned at=10:18 | a: online full changes=0
12:04 a vpn-opened v1 s1 at=10:17 | a: online full changes=0
12:05 * instance-lost v1 at=10:16 | a: online full changes=0
12:06 a settings at=10:15 | a: online full changes=0
12:07 a settings vpn=off at=10:14 | a: online full changes=0
12:08 a configuration-finished at=10:13 | a: online full changes=0
12:09 a configuration-started at=10:12 | a: online full changes=0
12:10 a activated at=10:11 | a: online full changes=0
12:11 a deactivated at=10:10 | a: online full changes=0
12:12 a vpn-closed v1 s1 at=10:09 | a: online full changes=0
12:13 a update-finished r1 outcome=succeeded at=10:08 | a: online full changes=0
12:14 a update-started r1 at=10:07 | a: online full changes=0
12:15 a moved g org=o at=10:06 | a: online full changes=0
12:16 a unfrozen allowance at=10:05 | a: online full changes=0
12:17 a frozen allowance at=10:04 | a: online full changes=0
12:18 a vpn-opened v1 s1 at=10:03 | a: online full changes=0
12:19 a heartbeat at=10:02 | a: online full changes=0
12:20 a registered f org=o at=10:01 | a: online full changes=0
12:21 * fleet-settings f interval=1h at=10:00 | a: online full changes=0
12:30 * restart | a: online full since=10:21 links=10:17 fleet=g member=10:06 changes=0

== Whatever is sent again each night, as it is, changes nothing
09:00    * fleet-settings f interval=2h
09:00    a registered f org=o
09:01    a heartbeat interval=2d                 | online heartbeat-only since=09:01 version=2
09:02    a settings vpn=off                      | online full links=09:02 version=3 member=09:00
1d+02:00 a registered f org=o                    | online full changes=0
1d+02:00 a settings vpn=off                      | online full changes=0
1d+02:01 a moved f org=o                         | online full changes=0 member=09:00
1d+02:02 * fleet-settings f interval=2h          | online full changes=0
1d+02:03 * fleet-unfrozen f                      | online full changes=0
1d+02:03 * organization-unfrozen o               | online full changes=0
1d+02:04 a unfrozen                              | online full changes=0
1d+02:05 a activated                             | online full changes=0
1d+02:06 a configuration-finished                | online full changes=0
1d+02:06 a update-finished                       | online full changes=0
1d+02:07 a vpn-closed v1 s1                      | online full changes=0
1d+02:08 * restart                               | online full since=09:01 links=09:02 version=3 changes=0
2d+02:00 a registered f org=o                    | online full changes=0
2d+02:00 a settings vpn=off                      | online full changes=0
3d+09:01:14 * wait                               | online full changes=0
3d+09:01:15 * wait                               | offline none since=3d+09:01:15 version=4

== A device that is replaced each night: deleted, registered and provisioned in one batch
10:00    a registered f
10:00    a heartbeat interval=1d                 | online heartbeat-only
1d+02:00 a deleted
1d+02:00 a registered f
1d+02:00 a provisioned                           | post-provisioning none since=1d+02:00
1d+02:10 a heartbeat interval=1d                 | online heartbeat-only since=1d+02:10
# The batch is sent again.
1d+02:20 a deleted at=1d+02:00                   | online heartbeat-only changes=0 fleet=f
1d+02:20 a registered f at=1d+02:00              | online heartbeat-only changes=0 fleet=f
1d+02:20 a provisioned at=1d+02:00               | online heartbeat-only changes=0 fleet=f
1d+02:21 * restart                               | online heartbeat-only changes=0
2d+01:00 a deleted
2d+01:00 a registered f
2d+01:00 a provisioned                           | post-provisioning none since=2d+01:00

== A device moves into a frozen fleet that is thawed in the same batch
10:00 a registered f
10:00 * fleet-frozen g
10:02 a moved g
10:02 * fleet-unfrozen g                         | configuring none since=10:02 fleet=g
10:03 b registered g
10:04 * fleet-frozen f
10:04 b moved f                                  | b: frozen none since=10:04
# Sent again.
10:05 * fleet-frozen f at=10:04                  | b: frozen none changes=0
10:05 b moved f at=10:04                         | b: frozen none changes=0
10:06 a moved g at=10:02                         | a: configuring none changes=0
10:06 * fleet-unfrozen g at=10:02                | a: configuring none changes=0

== Taken out of service and preregistered in one batch
10:00 a registered f
10:00 a heartbeat interval=1d                    | online heartbeat-only
10:05 a deactivated
10:05 a preregistered f                          | inactive heartbeat-only since=10:05
10:06 a activated                                | online heartbeat-only since=10:06
10:07 a deactivated at=10:05                     | online heartbeat-only changes=0
10:07 a preregistered f at=10:05                 | online heartbeat-only changes=0

== Two ends with other outcomes in one batch: the later in the log
10:00 a heartbeat interval=1d
10:01 a update-started r1
10:02 a update-finished r1 outcome=failed
10:02 a update-finished r1 outcome=succeeded     | online heartbeat-only since=10:02 outcome=succeeded update=10:02
# Sent again.
10:03 a update-finished r1 outcome=failed at=10:02 | online heartbeat-only changes=0
10:03 a update-finished r1 outcome=succeeded at=10:02 | online heartbeat-only changes=0 outcome=succeeded
10:04 * restart                                  | outcome=succeeded changes=0
10:05 a update-started r2
10:06 a update-finished outcome=failed
10:06 a update-finished r2 outcome=succeeded     | online heartbeat-only outcome=succeeded

== Two phases in one batch: the later in the log
10:00 a heartbeat interval=1d
10:01 a update-started r1
10:02 a update-progressed 10 phase=downloading
10:02 a update-progressed 20 phase=downloaded    | updating heartbeat-only phase=downloaded progress=20
10:02 a update-progressed 30                     | phase=downloaded progress=30
# Sent again.
10:03 a update-progressed 10 phase=downloading at=10:02
10:03 a update-progressed 20 phase=downloaded at=10:02
10:03 a update-progressed 30 at=10:02            | phase=downloaded progress=30 changes=0
10:04 * restart                                  | phase=downloaded progress=30 changes=0

== A batch that is sent again when more has happened since: nothing
10:00 a heartbeat interval=1d
10:01 a frozen
10:01 a unfrozen                                 | online heartbeat-only
10:02 a frozen                                   | frozen heartbeat-only since=10:02
10:03 a frozen at=10:01                          | frozen heartbeat-only changes=0
10:03 a unfrozen at=10:01                        | frozen heartbeat-only changes=0
10:04 a vpn-opened v1 s1
10:04 a vpn-closed v1 s1                         | frozen heartbeat-only
10:05 a vpn-opened v1 s1                         | frozen full links=10:05
10:06 a vpn-opened v1 s1 at=10:04                | frozen full changes=0
10:06 a vpn-closed v1 s1 at=10:04                | frozen full changes=0
10:07 * restart                                  | frozen full changes=0

== An import that knows no fleet takes the device out of it, and one that knows it puts it back
10:00    a registered f org=o
10:00    a heartbeat interval=30d                | online heartbeat-only
1d+02:00 a registered                            | online heartbeat-only changes=1 cause=moved moved=f/o,-/- member=1d+02:00
2d+02:00 a registered f org=o                    | online heartbeat-only changes=1 cause=moved moved=-/-,f/o member=2d+02:00
2d+02:00 a registered f org=o at=10:00           | online heartbeat-only changes=0
2d+02:01 a registered at=1d+02:00                | online heartbeat-only changes=0

== A configuration that is started again each night: since the first start, and its percent begins anew
10:00    a heartbeat interval=30d                | online heartbeat-only
10:01    a configuration-started                 | configuring heartbeat-only since=10:01
10:02    a configuration-progressed 40           | configuring heartbeat-only progress=40
1d+02:00 a configuration-started                 | configuring heartbeat-only since=10:01 changes=0 progress=-
# The end of the one before, told late.
1d+02:01 a configuration-finished at=1d+01:59    | configuring heartbeat-only changes=0
1d+02:02 a configuration-progressed 90 at=1d+01:58 | configuring heartbeat-only progress=-
1d+02:03 * restart                               | configuring heartbeat-only since=10:01 changes=0
1d+02:04 a configuration-finished                | online heartbeat-only since=1d+02:04

== A dead server is told lost again and again: who came since is told again
10:00    a heartbeat interval=30d
10:00    a vpn-opened v1 s1 lease=1h             | online full
10:05    * instance-lost v1                      | online heartbeat-only links=10:05
10:06    a vpn-opened v1 s1 lease=1h             | online full links=10:06
10:06:30 * instance-lost v1 at=10:05             | online full changes=0
10:07    * instance-lost v1                      | online heartbeat-only links=10:07
10:08    * restart                               | online heartbeat-only changes=0
10:09    a vpn-opened v1 s1 lease=1h             | online full links=10:09

== One opening told with two beginnings in one batch: the later in the log
10:10 a vpn-opened v1 s1 opened=10:00
10:10 a vpn-opened v1 s1 opened=10:05            | online vpn-only
10:11 a vpn-closed v1 s1 opened=10:00            | online vpn-only changes=0
10:12 a vpn-closed v1 s1 opened=10:05            | offline none since=10:12
10:20 b vpn-opened v1 s1 opened=10:05
10:20 b vpn-opened v1 s1 opened=10:00            | b: online vpn-only
10:21 * restart                                  | b: online vpn-only changes=0
10:22 b vpn-closed v1 s1 opened=10:00            | b: offline none since=10:22

== Last words that are told again, and a poll since
10:00 a heartbeat interval=1d                    | online heartbeat-only
10:05 a heartbeat going-away                     | offline none since=10:05
10:06 a heartbeat going-away at=10:05            | offline none changes=0
10:10 a heartbeat interval=1d                    | online heartbeat-only since=10:10
10:11 a heartbeat going-away at=10:05            | online heartbeat-only changes=0
10:12 * restart                                  | online heartbeat-only changes=0
# In the millisecond of the poll, and that poll once more: the later in the log.
10:13 a heartbeat going-away at=10:10            | offline none since=10:10
10:14 a heartbeat interval=1d at=10:10           | online heartbeat-only since=10:10

== A start and its percentages come with their end, and all of it once more
10:00 a heartbeat interval=1d
10:01 a update-started r1
10:01 a update-progressed 100 r1 phase=applying
10:01 a update-finished r1 outcome=succeeded     | online heartbeat-only since=10:01 release=r1 outcome=succeeded phase=- progress=-
10:02 a update-started r1 at=10:01
10:02 a update-progressed 100 r1 phase=applying at=10:01
10:02 a update-finished r1 outcome=succeeded at=10:01 | online heartbeat-only changes=0 release=r1 outcome=succeeded
10:03 a update-started r2                        | updating heartbeat-only since=10:03 phase=- progress=-
10:04 a update-progressed 100 r1 phase=applying  | updating heartbeat-only phase=- progress=- changes=0

== Replaced in one batch, and the batch is sent again after days: nothing
10:00    a registered f
10:00    a heartbeat interval=1d                 | online heartbeat-only
10:05    a deleted
10:05    a registered g                          | configuring none fleet=g
10:06    a heartbeat interval=10d                | online heartbeat-only since=10:06
10:07    a settings vpn=off                      | online full version=6
3d+10:00 a deleted at=10:05                      | online full changes=0
3d+10:00 a registered g at=10:05                 | online full changes=0 fleet=g
3d+10:01 * restart                               | online full changes=0
4d+10:00 a registered g                          | online full changes=0
6d+10:00 a deleted at=10:05                      | online full changes=0
6d+10:00 a registered g at=10:05                 | online full changes=0

== Registered and deleted in one batch, and the batch is sent again after days: it is gone
10:00    a registered f
10:00    a deleted                               | -
3d+10:00 a registered f at=10:00
3d+10:00 a deleted at=10:00                      | -
3d+10:01 * restart                               | - changes=0

== Closed and opened in one batch, and the batch is sent again after days
10:00    a vpn-closed v1 s2
10:00    a vpn-opened v1 s2                      | online vpn-only
3d+10:00 a vpn-closed v1 s2 at=10:00             | online vpn-only changes=0
3d+10:00 a vpn-opened v1 s2 at=10:00             | online vpn-only changes=0

== Opened and closed in one batch, and the batch is sent again after days
10:00    a registered f
10:00    a vpn-opened v1 s2                      | online vpn-only
10:00    a vpn-closed v1 s2                      | offline none
3d+10:00 a vpn-opened v1 s2 at=10:00
3d+10:00 a vpn-closed v1 s2 at=10:00             | offline none

== Ended and started anew in one batch that is sent again after the ends of many others
10:00 a heartbeat interval=30d
10:01 a update-finished r1
10:01 a update-started r1 | updating heartbeat-only
10:02 a update-finished r2
10:03 a update-finished r3
10:04 a update-finished r4
10:05 a update-finished r5
10:06 a update-finished r6 | updating heartbeat-only changes=0
10:07 * restart
10:08 a update-finished r1 at=10:01 | updating heartbeat-only changes=0
10:08 a update-started r1 at=10:01 | updating heartbeat-only changes=0

== The same where the end names none
10:00 a heartbeat interval=30d
10:01 a update-finished
10:01 a update-started r1 | updating heartbeat-only
10:02 a update-finished r2
10:03 a update-finished r3
10:04 a update-finished r4
10:05 a update-finished r5
10:06 a update-finished r6 | updating heartbeat-only changes=0
10:07 * restart
10:08 a update-finished at=10:01 | updating heartbeat-only changes=0
10:08 a update-started r1 at=10:01 | updating heartbeat-only changes=0
10:09 a update-finished outcome=failed | online heartbeat-only
10:10 a update-finished r7
10:11 a update-finished r8
10:12 a update-finished r9
10:13 a update-finished r10
10:14 a update-finished r11 | online heartbeat-only changes=0 outcome=failed
10:15 a update-started r1 at=10:01 | online heartbeat-only changes=0

== Started and ended in one batch that is sent again after the ends of many others
10:00 a heartbeat interval=30d
10:01 a update-started r1
10:01 a update-finished r1 outcome=failed | online heartbeat-only
10:02 a update-finished r2
10:03 a update-finished r3
10:04 a update-finished r4
10:05 a update-finished r5
10:06 a update-finished r6
10:07 * restart
10:08 a update-started r1 at=10:01 | online heartbeat-only changes=0
10:08 a update-finished r1 outcome=failed at=10:01 | online heartbeat-only changes=0 outcome=failed

== A close that names a connection ends it also where its instance was lost in between
10:00 f vpn-opened v7 s1 opened=09:50 lease=1h | online vpn-only
10:05 f vpn-opened v7 s1 opened=10:04 lease=1h | online vpn-only
10:06 f vpn-closed v7 s1 opened=09:55          | online vpn-only changes=0
10:07 * instance-lost v7                       | f: offline none
10:08 f vpn-opened v7 s1 opened=09:50 lease=1h | offline none
10:09 f vpn-opened v7 s1 opened=10:04 lease=1h | online vpn-only
