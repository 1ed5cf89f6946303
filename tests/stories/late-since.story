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
12:20 c registered f1                      | online heartbeat-only changes=1 cause=moved
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

== Two reasons, the last to be lifted told last: since the lifting that freed it
10:00 a heartbeat interval=1d              | online heartbeat-only
10:05 a frozen allowance                   | frozen heartbeat-only since=10:05
10:12 a unfrozen overdue-invoices          | frozen heartbeat-only changes=0
10:14 a unfrozen allowance at=10:10        | online heartbeat-only since=10:10 cause=unfrozen

== The same where the other reason did hold, and was lifted later
11:00 a heartbeat interval=1d              | online heartbeat-only
11:05 a frozen allowance                   | frozen heartbeat-only since=11:05
11:06 a frozen overdue-invoices            | frozen heartbeat-only changes=0
11:12 a unfrozen overdue-invoices          | frozen heartbeat-only changes=0
11:14 a unfrozen allowance at=11:10        | online heartbeat-only since=11:12 cause=unfrozen

== Out of a frozen fleet and preregistered, told late, before the first contact
10:00 a registered f                       | configuring none
10:02 * fleet-frozen f                     | frozen none since=10:02
10:07 a heartbeat interval=1d              | frozen heartbeat-only
10:09 a preregistered g at=10:05           | online heartbeat-only since=10:07 cause=heartbeat

== The same of a device that was in contact before: the preregistration says nothing
10:00 a registered f                       | configuring none
10:01 a heartbeat interval=1d              | online heartbeat-only
10:02 * fleet-frozen f                     | frozen heartbeat-only since=10:02
10:07 a heartbeat interval=1d              | frozen heartbeat-only
10:09 a preregistered g at=10:05           | online heartbeat-only since=10:05 cause=registered

== Out of a frozen fleet and deactivated, told late, with contact after it
10:00 a registered f
10:01 a heartbeat interval=1d              | online heartbeat-only
10:02 * fleet-frozen f                     | frozen heartbeat-only since=10:02
10:07 a heartbeat interval=1d              | frozen heartbeat-only
10:09 a deactivated at=10:05               | frozen heartbeat-only changes=0
10:10 a moved g at=10:04                   | online heartbeat-only since=10:07 cause=heartbeat

== A setting told late, by which the heartbeat ended while the VPN was up
10:00 * restart default=10m
10:01 a settings interval=40m vpn=off
10:03 a heartbeat                          | online full
10:05 a vpn-opened v1 s1                   | online full
10:20 a vpn-closed v1 s1                   | online full
10:25 a settings vpn=on at=10:02           | offline none since=10:20 links=10:20 cause=vpn-closed

== The same where the heartbeat came before both settings: the first of them counts for it
10:00 * restart default=10m
10:00 a heartbeat                          | online heartbeat-only
10:01 a settings interval=40m vpn=off      | online full
10:05 a vpn-opened v1 s1
10:20 a vpn-closed v1 s1                   | online full
10:25 a settings vpn=on at=10:02           | online heartbeat-only since=10:00 links=10:20 cause=vpn-closed
11:00:15 * wait                            | offline none since=11:00:15

== The same where the poll tells its interval: it was offline by then
10:00 a heartbeat interval=10m             | online heartbeat-only
10:01 a settings interval=40m vpn=off      | online full
10:05 a vpn-opened v1 s1                   | online full
10:20 a vpn-closed v1 s1                   | offline none since=10:20 links=10:20 cause=vpn-closed
10:25 a settings vpn=on at=10:02           | offline none since=10:20 changes=0

== What came late and changed nothing is the date of what a later one shows
10:00 a registered f
10:00 a heartbeat interval=1d              | online heartbeat-only
10:05 a frozen allowance                   | frozen heartbeat-only since=10:05
10:11 * fleet-frozen f                     | frozen heartbeat-only changes=0
10:14 a unfrozen allowance at=10:10        | frozen heartbeat-only changes=0
10:15 a moved g at=10:10:30                | online heartbeat-only since=10:10 cause=unfrozen

== Frozen and thawed, told late and in the wrong order, over a restart
10:00 a heartbeat interval=1d
10:05 a frozen                             | frozen heartbeat-only since=10:05
10:06 a heartbeat interval=1d
10:09 * restart                            | frozen heartbeat-only changes=0
10:10 a unfrozen at=10:06                  | online heartbeat-only since=10:06 cause=unfrozen
10:11 a frozen at=10:07                    | frozen heartbeat-only since=10:07
10:12 a deactivated at=10:08               | frozen heartbeat-only changes=0
10:13 a unfrozen at=10:09                  | inactive heartbeat-only since=10:09

== A session that was open when the heartbeat ended, and its end is told late
10:00 a heartbeat interval=10m
10:05 a vpn-opened v1 s1                   | online full
10:30 * wait                               | online vpn-only links=10:15
10:40 a vpn-closed v1 s1 at=10:20          | offline none since=10:20 links=10:20 cause=vpn-closed

== Frozen once more and lifted in one batch: since then, whatever was known before
10:00 a provisioned                        | post-provisioning none
10:01 a frozen                             | frozen none since=10:01
10:03 a heartbeat interval=1d              | frozen heartbeat-only since=10:01 links=10:03
10:05 a frozen
10:05 a unfrozen                           | online heartbeat-only since=10:05 links=10:03 cause=unfrozen

== The same where something later was known by then
10:00 a provisioned                        | post-provisioning none
10:01 a frozen                             | frozen none since=10:01
10:03 a vpn-opened v1 s1                   | frozen vpn-only since=10:01 links=10:03
10:05 a frozen
10:06 a heartbeat interval=1d              | frozen full since=10:01
10:07 a unfrozen at=10:05                  | online full since=10:05 cause=unfrozen

== A setting that moves the links is no contact: provisioned late, and heard of again
10:00    a registered f
10:01    a heartbeat interval=24h          | online heartbeat-only
10:03    a settings vpn=off                | online full links=10:03
10:05    a provisioned at=10:02            | post-provisioning full since=10:02
10:06    a settings vpn=off                | post-provisioning full changes=0
10:08    a activated
10:09    a heartbeat interval=24h at=10:07 | online full since=10:07 cause=heartbeat

== What was shown before a late deletion tells of no contact after it
10:00 a registered f1
10:01 a heartbeat interval=10m              | online heartbeat-only
10:30 a heartbeat at=10:00 interval=10m     | offline none since=10:16:15
10:40 a registered f1 at=10:35              | offline none changes=0
10:50 a deleted at=10:20                    | configuring none since=10:35 cause=registered

== Without VPN a heartbeat alone is full, and says nothing of a session
11:00 b heartbeat interval=1d
11:00 b settings vpn=off                    | online full
12:00 b vpn-opened v1 s1                    | online full
12:01 b heartbeat interval=10m at=11:30     | online vpn-only links=12:00 cause=vpn-opened

== A connection from before a deletion begins after it
13:00 c registered f1
13:05 c deleted                             | -
13:05 c registered f1                       | configuring none
13:20 c vpn-opened v1 s1 opened=13:02       | online vpn-only since=13:05:00.001 links=13:05:00.001

== The lease of an opening that was lost dates no later connection
14:00 d vpn-opened v1 s1 lease=15m          | online vpn-only
14:05 * instance-lost v1                    | d: offline none since=14:05
14:20 d vpn-opened v1 s1 opened=14:10       | online vpn-only since=14:10

== A device that was registered again in a frozen fleet was frozen until the lifting
15:00 * fleet-frozen f3 allowance
15:00 e heartbeat interval=10m              | online heartbeat-only
15:01 e registered f3                       | frozen heartbeat-only
15:30 * wait                                | e: frozen none links=15:15:15
15:32 e registered f3 at=15:31              | frozen none changes=0
15:33 * fleet-unfrozen f3 allowance at=15:30:30 | e: offline none since=15:30:30 cause=unfrozen
