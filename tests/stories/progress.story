# OS configuration and updates: started, progressed, finished.

== Configuration, then an update
# Registered by itself and not seen; then OS configuration; then an update.
10:00 a registered f                | configuring none since=10:00
10:01 a heartbeat interval=15m      | online heartbeat-only since=10:01
10:02 a configuration-started       | configuring heartbeat-only since=10:02 progress=-
10:03 a configuration-progressed 40 | configuring heartbeat-only progress=40 changes=0
10:04 a update-started r1           | configuring heartbeat-only progress=40 changes=0
10:05 a configuration-finished      | updating heartbeat-only since=10:05 progress=-
10:06 a update-progressed 10        | updating heartbeat-only progress=10 changes=0
# A percentage from before the start does not count.
10:07 a update-started r2           | updating heartbeat-only progress=- changes=0
10:08 a vpn-opened v1 s1            | updating full
# An update shows only while the API is polled; the timeout still does.
10:23:30 * wait                     | updating vpn-only
10:23:45 * wait                     | online vpn-only since=10:23:45 cause=heartbeat-expired
10:25 a heartbeat interval=15m      | updating full since=10:25
10:26 a update-finished             | online full since=10:26 cause=update-finished

== A percentage never starts anything
# A start that is older than the finish known is over.
10:00 a heartbeat interval=1h
10:01 a update-progressed 50             | online heartbeat-only progress=- changes=0
10:02 a update-finished
10:03 a update-started r1 at=10:01:30    | online heartbeat-only progress=- changes=0
10:04 a update-started r2                | updating heartbeat-only progress=- since=10:04
10:05 a update-finished at=10:04         | online heartbeat-only since=10:04

== Configuration while both links are lost and found again
10:00    a heartbeat
10:01    a configuration-started       | configuring heartbeat-only since=10:01
10:02    a configuration-progressed 30 | configuring heartbeat-only progress=30
10:22:45 * wait                        | offline none since=10:22:45 progress=-
10:40    a heartbeat                   | configuring heartbeat-only since=10:40 progress=30 cause=heartbeat
10:41    a configuration-finished      | online heartbeat-only since=10:41

== Configuration shows on the VPN alone
10:00    a heartbeat
10:00    a vpn-opened v1 s1
10:01    a configuration-started       | configuring full since=10:01
10:22:30 * wait                        | configuring vpn-only since=10:01 links=10:22:30
10:25    a vpn-closed v1 s1            | offline none since=10:25
10:26    a vpn-opened v1 s2            | configuring vpn-only since=10:26 cause=vpn-opened

== An update while both links are lost and found again
10:00    a heartbeat
10:01    a update-started r1           | updating heartbeat-only since=10:01
10:02    a update-progressed 70        | updating heartbeat-only progress=70
10:22:45 * wait                        | offline none since=10:22:45
# The VPN alone does not show an update.
10:30    a vpn-opened v1 s1            | online vpn-only since=10:30 progress=-
10:40    a heartbeat                   | updating full since=10:40 progress=70
10:41    a update-finished             | online full since=10:41 progress=-

== An update shows to the last millisecond of the grace
10:00        a heartbeat interval=20m
10:01        a update-started r1   | updating heartbeat-only
10:30:14.999 * wait                | updating heartbeat-only heartbeat=timeout
10:30:15     * wait                | offline none since=10:30:15

== An update superseded by another release
10:00 a heartbeat interval=1d
10:01 a update-started r1    | updating heartbeat-only since=10:01
10:02 a update-progressed 60 | updating heartbeat-only progress=60
10:03 a update-started r2    | updating heartbeat-only since=10:01 progress=- changes=0
10:04 a update-progressed 5  | updating heartbeat-only progress=5
# A percentage of the first one, told late.
10:05 a update-progressed 90 at=10:02:30 | updating heartbeat-only progress=5
10:06 a update-finished      | online heartbeat-only since=10:06

== The finish of the first release arrives after the start of the second
10:00 a heartbeat interval=1d
10:01 a update-started r1
10:05 a update-started r2
10:06 a update-finished at=10:04     | updating heartbeat-only changes=0
10:07 a update-finished              | online heartbeat-only

== Finished without started
10:00 a heartbeat interval=1d
10:01 a configuration-finished       | online heartbeat-only changes=0
10:02 a update-finished              | online heartbeat-only changes=0
# The start, told late, is over.
10:03 a configuration-started at=10:00:30 | online heartbeat-only changes=0
10:04 a update-started r1 at=10:00:30     | online heartbeat-only changes=0

== Started and finished in one batch: the later in the log
10:00 a heartbeat interval=1d
10:01 a update-started r1            | updating heartbeat-only since=10:01
10:01 a update-finished              | online heartbeat-only since=10:01
10:02 a configuration-finished
10:02 a configuration-started        | configuring heartbeat-only since=10:02
10:03 a configuration-finished       | online heartbeat-only since=10:03
10:04 a update-finished
10:04 a update-started r2            | updating heartbeat-only since=10:04
# Sent again, over a restart.
10:05 * restart                      | updating heartbeat-only changes=0
10:05 a update-finished at=10:04     | updating heartbeat-only changes=0
10:05 a update-started r2 at=10:04   | updating heartbeat-only changes=0

== Configuration finished and started anew in one batch
10:00 a heartbeat interval=1d
10:01 a configuration-started        | configuring heartbeat-only since=10:01
10:02 a configuration-finished       | online heartbeat-only since=10:02
10:02 a configuration-started        | configuring heartbeat-only since=10:02
10:03 a configuration-started at=10:02 | configuring heartbeat-only changes=0

== Two releases started in one batch: the later in the log
10:00 a heartbeat interval=1d
10:01 a update-started r2
10:01 a update-started r1            | updating heartbeat-only
10:02 a update-finished              | online heartbeat-only

== Started again after it was finished
10:00 a heartbeat interval=1d
10:01 a configuration-started        | configuring heartbeat-only since=10:01
10:02 a configuration-finished       | online heartbeat-only since=10:02
10:03 a configuration-started        | configuring heartbeat-only since=10:03

== Of two percentages the later; of one instant the later in the log
10:00 a heartbeat interval=1d
10:01 a update-started r1
10:02 a update-progressed 40
10:02 a update-progressed 30         | progress=30
10:04 a update-progressed 20         | progress=20
10:05 a update-progressed 90 at=10:03 | progress=20
10:06 a update-progressed 100        | updating heartbeat-only progress=100 changes=0

== A percentage in the very millisecond of the start counts
10:00 a heartbeat interval=1d
10:01 a update-progressed 7          | progress=-
10:01 a update-started r1            | updating heartbeat-only progress=7

== Configuration goes before an update, whichever began first
10:00 a heartbeat interval=1d
10:01 a update-started r1            | updating heartbeat-only since=10:01
10:02 a update-progressed 50         | progress=50
10:03 a configuration-started        | configuring heartbeat-only since=10:03 progress=-
10:04 a update-finished              | configuring heartbeat-only changes=0
10:05 a configuration-finished       | online heartbeat-only since=10:05

== An update in progress and the VPN disabled by setting
10:00    a settings vpn=off
10:00    a heartbeat
10:01    a update-started r1         | updating full since=10:01
10:22:45 * wait                      | offline none

== Configuration of a device that never was in contact
10:00 a registered f                 | configuring none since=10:00
10:01 a configuration-started        | configuring none since=10:00 changes=0
10:02 a configuration-finished       | configuring none since=10:00 changes=0
10:03 a heartbeat                    | online heartbeat-only since=10:03

== The finish of an update, told late
10:00    a heartbeat interval=1d
10:01    a update-started r1                | updating heartbeat-only
10:20    a update-finished at=10:10         | online heartbeat-only since=10:10

== Configuration that began before the device was lost, told after that
10:00    a heartbeat
10:23    * wait                             | offline none
10:30    a configuration-started at=10:10   | offline none changes=0
10:31    a vpn-opened v1 s1                 | configuring vpn-only since=10:31

== The end of an older release is told late, after the next one has begun
10:00 a heartbeat interval=1d
10:01 a update-started r1                    | updating heartbeat-only since=10:01 release=r1 update=10:01
10:05 a update-started r2                    | updating heartbeat-only changes=0 release=r2 update=10:05
10:06 a update-finished r1 outcome=aborted   | updating heartbeat-only changes=0 release=r2 outcome=- update=10:05
10:07 * restart                              | updating heartbeat-only changes=0
10:08 a update-finished r2 outcome=succeeded | online heartbeat-only since=10:08 release=r2 outcome=succeeded update=10:08
10:09 a update-finished r1 outcome=failed    | online heartbeat-only changes=0 outcome=succeeded update=10:08

== The end is told before the start
10:00 a heartbeat interval=1d
10:06 a update-finished r1 outcome=failed    | online heartbeat-only changes=0 release=- outcome=-
10:07 a update-started r1 at=10:01           | online heartbeat-only changes=0 release=r1 outcome=failed update=10:06
10:08 a update-started r2 at=10:05           | updating heartbeat-only since=10:01 release=r2 outcome=-
10:09 a update-finished                      | online heartbeat-only since=10:09

== An update that is taken up again after it failed
10:00 a heartbeat interval=1d
10:01 a update-started r1
10:05 a update-finished r1 outcome=failed    | online heartbeat-only since=10:05 outcome=failed
10:06 a update-started r1                    | updating heartbeat-only since=10:06 outcome=- update=10:06
10:07 a update-finished r1 outcome=failed at=10:05 | updating heartbeat-only changes=0
10:08 a update-finished r1 outcome=succeeded | online heartbeat-only since=10:08 outcome=succeeded

== Phases: what a later progress leaves out stays until the finish
10:00 a heartbeat interval=1d
10:01 a update-started r1                    | updating heartbeat-only phase=- progress=-
10:02 a update-progressed 10 r1 phase=downloading | phase=downloading progress=10
10:03 a update-progressed 90                 | phase=downloading progress=90
10:04 a update-progressed 5 r1 phase=applying | phase=applying progress=5
10:05 a update-progressed 50 r0 phase=downloading | phase=applying progress=5
10:06 * restart                              | phase=applying progress=5
10:07 a update-finished                      | online heartbeat-only phase=- progress=-

== Progress of the next release is told before its start
10:00 a heartbeat interval=1d
10:01 a update-started r1
10:06 a update-progressed 20 r2 phase=downloading | updating heartbeat-only progress=- phase=-
10:07 a update-started r2 at=10:05           | updating heartbeat-only progress=20 phase=downloading release=r2

== A finish of a named release says nothing of an update without a name
10:00 a heartbeat interval=1d
10:01 a update-started ""
10:02 a update-finished r1                   | updating heartbeat-only changes=0
10:03 a update-finished                      | online heartbeat-only since=10:03

== Two releases end and begin in one batch
10:00 a heartbeat interval=1d
10:01 a update-started r1                    | updating heartbeat-only since=10:01
10:05 a update-finished r1 outcome=succeeded
10:05 a update-started r2                    | updating heartbeat-only since=10:05
10:06 b heartbeat interval=1d
10:06 b update-started r1
10:07 b update-started r2
10:07 b update-finished r1                   | b: updating heartbeat-only since=10:06
10:07 b update-finished r2                   | b: online heartbeat-only since=10:07

== A percentage is shown with its status only
10:00 a heartbeat interval=1d
10:01 a update-started r1
10:02 a update-progressed 40                 | updating heartbeat-only progress=40
10:03 a frozen                               | frozen heartbeat-only progress=-
10:04 a unfrozen                             | updating heartbeat-only progress=40

== How a configuration ended changes no status
10:00 a heartbeat interval=1d
10:01 a configuration-started                | configuring heartbeat-only
10:02 a configuration-finished outcome=failed | online heartbeat-only since=10:02

== Six releases one after the other, and their ends are told from the last to the first
10:00 a heartbeat interval=1d
10:01 a update-started r1                    | updating heartbeat-only since=10:01
10:02 a update-started r2
10:03 a update-started r3
10:04 a update-started r4
10:05 a update-started r5
10:06 a update-started r6                    | updating heartbeat-only release=r6 update=10:06
10:07 a update-finished r5 at=10:05:50       | updating heartbeat-only changes=0
10:08 a update-finished r4                   | updating heartbeat-only changes=0
10:09 a update-finished r3                   | updating heartbeat-only changes=0
10:10 a update-finished r2                   | updating heartbeat-only changes=0
10:11 a update-finished r1 outcome=failed    | updating heartbeat-only changes=0 release=r6 outcome=- update=10:06
# One without a name, from before the start.
10:12 a update-finished at=10:05:59          | updating heartbeat-only changes=0
10:13 a update-started r5 at=10:05:30        | updating heartbeat-only changes=0 release=r6
10:14 * restart                              | updating heartbeat-only changes=0
10:15 a update-finished r6 outcome=succeeded | online heartbeat-only since=10:15 outcome=succeeded update=10:15
10:16 a update-finished r5 outcome=failed    | online heartbeat-only changes=0 outcome=succeeded
10:17 a update-finished r1 outcome=failed    | online heartbeat-only changes=0 outcome=succeeded
10:18 * restart                              | online heartbeat-only changes=0
10:19 a update-started r6 at=10:06           | online heartbeat-only changes=0 outcome=succeeded update=10:15

== The end of an older release, told late, while the device configures
10:00 a heartbeat interval=1d
10:01 a update-started r1                    | updating heartbeat-only
10:02 a configuration-started                | configuring heartbeat-only since=10:02
10:03 a update-started r2
10:04 a update-finished r1 outcome=succeeded | configuring heartbeat-only changes=0
10:05 a configuration-finished               | updating heartbeat-only since=10:05 release=r2
10:06 a configuration-finished at=10:01:30   | updating heartbeat-only changes=0
10:07 a update-finished r2                   | online heartbeat-only since=10:07

== An update that is told again as it is: a start once more is none
10:00 a heartbeat interval=1d
10:01 a update-started r1                    | updating heartbeat-only since=10:01
10:02 a update-started r1 at=10:01           | updating heartbeat-only changes=0 update=10:01
10:05 a update-finished r1 outcome=failed    | online heartbeat-only since=10:05
10:06 a update-started r1 at=10:01           | online heartbeat-only changes=0 outcome=failed update=10:05
10:07 a update-finished r1 outcome=failed at=10:05 | online heartbeat-only changes=0
10:08 a update-finished r1 outcome=succeeded | online heartbeat-only changes=0 outcome=succeeded update=10:08
