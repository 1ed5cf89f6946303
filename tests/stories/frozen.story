# Frozen: by device, fleet and organization, each for its own reasons.

== Frozen by the device
10:00 a heartbeat interval=1d    | online heartbeat-only
10:01 a frozen                   | frozen heartbeat-only since=10:01 links=10:00 cause=frozen
10:02 a unfrozen                 | online heartbeat-only since=10:02 links=10:00 cause=unfrozen

== Frozen by the fleet, for those in it
10:00 a registered f
10:00 b registered g
10:01 * fleet-frozen f           | a: frozen none since=10:01 cause=frozen ; b: configuring none changes=0
10:02 c registered f             | c: frozen none since=10:02 cause=registered
10:03 * fleet-unfrozen f         | a: configuring none since=10:03 cause=unfrozen ; c: configuring none since=10:03

== Frozen by the organization, for those in it
10:00 a registered f org=o
10:00 b registered f org=p
10:01 * organization-frozen o    | a: frozen none since=10:01 ; b: configuring none changes=0
10:02 * organization-unfrozen o  | a: configuring none since=10:02

== Frozen by device, fleet and organization at once, lifted one at a time
10:00 a registered f org=o
10:00 a heartbeat interval=2h          | online heartbeat-only since=10:00
10:01 a frozen allowance               | frozen heartbeat-only since=10:01 links=10:00 cause=frozen
10:02 * fleet-frozen f overdue-invoices | frozen heartbeat-only since=10:01 changes=0
10:03 a unfrozen allowance             | frozen heartbeat-only changes=0
10:04 * organization-frozen o          | frozen heartbeat-only changes=0
10:05 * fleet-unfrozen f               | frozen heartbeat-only changes=0
10:06 * organization-unfrozen o        | online heartbeat-only since=10:06 cause=unfrozen
# A freeze that was lifted later, arriving late, changes nothing.
10:07 a frozen allowance at=10:02      | online heartbeat-only changes=0

== The same lifted in another order
10:00 a registered f org=o
10:01 * organization-frozen o allowance | frozen none since=10:01
10:02 * fleet-frozen f allowance        | frozen none changes=0
10:03 a frozen allowance                | frozen none changes=0
10:04 * organization-unfrozen o         | frozen none changes=0
10:05 a unfrozen                        | frozen none changes=0
10:06 * fleet-unfrozen f                | configuring none since=10:06

== Every reason is lifted by itself
10:00 a heartbeat interval=1d
10:01 a frozen allowance               | frozen heartbeat-only since=10:01
10:02 a frozen paid-application-type   | frozen heartbeat-only changes=0
10:03 a frozen overdue-invoices        | frozen heartbeat-only changes=0
10:04 a frozen other                   | frozen heartbeat-only changes=0
10:05 a unfrozen allowance             | frozen heartbeat-only changes=0
10:06 a unfrozen paid-application-type | frozen heartbeat-only changes=0
10:07 a unfrozen overdue-invoices      | frozen heartbeat-only changes=0
10:08 a unfrozen other                 | online heartbeat-only since=10:08

== Lifting without a reason lifts every reason of that scope, and of no other
10:00 a registered f
10:01 a frozen allowance
10:02 a frozen overdue-invoices
10:03 * fleet-frozen f allowance
10:04 a unfrozen                       | frozen none changes=0
10:05 * fleet-unfrozen f               | configuring none since=10:05

== A freeze without a reason is for the reason other
10:00 a heartbeat interval=1d
10:01 a frozen                         | frozen heartbeat-only
10:02 a unfrozen allowance             | frozen heartbeat-only changes=0
10:03 a unfrozen other                 | online heartbeat-only

== Lifting a reason that was never given does nothing
10:00 a heartbeat interval=1d
10:01 a unfrozen                       | online heartbeat-only changes=0
10:02 * fleet-unfrozen f
10:03 * organization-unfrozen o        | online heartbeat-only changes=0

== A freeze and its lifting in one batch: the later in the log
10:00 a heartbeat interval=1d
10:01 a frozen                         | frozen heartbeat-only
10:01 a unfrozen                       | online heartbeat-only since=10:01
10:02 b heartbeat interval=1d
10:03 b unfrozen
10:03 b frozen                         | b: frozen heartbeat-only since=10:03

== Frozen, unfrozen and frozen again in one batch: what was seen is a duplicate
10:00 a heartbeat interval=1d
10:01 a frozen                         | frozen heartbeat-only
10:01 a unfrozen                       | online heartbeat-only since=10:01
10:01 a frozen                         | online heartbeat-only changes=0
# The batch once more, and a restart between: nothing.
10:02 a frozen at=10:01                | online heartbeat-only changes=0
10:02 * restart                        | online heartbeat-only changes=0
10:02 a unfrozen at=10:01              | online heartbeat-only changes=0
10:03 a frozen at=10:01                | online heartbeat-only changes=0

== Unfrozen and frozen in one batch, sent again
10:00 a heartbeat interval=1d
10:01 a unfrozen allowance             | online heartbeat-only
10:01 a frozen allowance               | frozen heartbeat-only since=10:01
10:02 a unfrozen allowance at=10:01    | frozen heartbeat-only changes=0
10:02 a frozen allowance at=10:01      | frozen heartbeat-only changes=0
10:03 a unfrozen                       | online heartbeat-only since=10:03

== One reason is swapped for another in one batch
10:00 a heartbeat interval=1d
10:01 a frozen allowance               | frozen heartbeat-only since=10:01
10:02 a unfrozen
10:02 a frozen overdue-invoices        | frozen heartbeat-only
10:03 a unfrozen overdue-invoices      | online heartbeat-only since=10:03

== A fleet and an organization frozen and unfrozen in one batch
10:00 a registered f org=o
10:00 a heartbeat interval=1d
10:01 * fleet-frozen f                 | frozen heartbeat-only
10:01 * fleet-unfrozen f               | online heartbeat-only since=10:01
10:02 * organization-frozen o          | frozen heartbeat-only
10:02 * organization-unfrozen o        | online heartbeat-only since=10:02
10:03 * fleet-unfrozen f
10:03 * fleet-frozen f                 | frozen heartbeat-only since=10:03
10:04 * fleet-unfrozen f at=10:03      | frozen heartbeat-only changes=0

== The lifting arrives before the freeze
10:00 a heartbeat interval=1d
10:05 a unfrozen at=10:03              | online heartbeat-only changes=0
10:06 a frozen at=10:02                | online heartbeat-only changes=0
10:07 * fleet-unfrozen f at=10:03
10:08 * fleet-frozen f at=10:02
10:09 b registered f                   | b: configuring none

== Frozen goes before everything else, and the links go on as they are
10:00    a preregistered f             | inactive none
10:01    a frozen                      | frozen none since=10:01
10:02    a heartbeat                   | frozen heartbeat-only since=10:01 links=10:02
10:03    a vpn-opened v1 s1            | frozen full since=10:01 links=10:03
10:04    a update-started r1           | frozen full changes=0
10:24:30 * wait                        | frozen vpn-only since=10:01 links=10:24:30
10:25    a vpn-closed v1 s1            | frozen none since=10:01 links=10:25
# What it is after the thaw, it is since the thaw.
10:30    a unfrozen                    | offline none since=10:30 links=10:25 cause=unfrozen

== A device that was deactivated while it was frozen
10:00 a heartbeat interval=1d
10:01 a frozen                         | frozen heartbeat-only
10:02 a deactivated                    | frozen heartbeat-only changes=0
10:03 a unfrozen                       | inactive heartbeat-only since=10:03 cause=unfrozen

== A freeze that is told late holds from when it happened, no earlier than the last change
10:00 a heartbeat interval=1d          | online heartbeat-only since=10:00
10:10 a frozen at=10:05                | frozen heartbeat-only since=10:05
10:11 a unfrozen other at=10:07        | online heartbeat-only since=10:07
10:12 a frozen overdue-invoices at=10:06 | frozen heartbeat-only since=10:07

== A fleet is frozen before any device of it is heard of
10:00 * fleet-frozen f
10:00 * organization-frozen o
10:01 a heartbeat                      | online heartbeat-only
10:02 a registered f org=o             | frozen heartbeat-only since=10:02 cause=registered
10:03 * fleet-unfrozen f               | frozen heartbeat-only changes=0
10:04 * organization-unfrozen o        | online heartbeat-only since=10:04

== A fleet with many devices is frozen and thawed, each device dated alike
10:00 a registered f
10:00 b registered f
10:00 c registered f
10:00 d registered f
10:00 c heartbeat interval=1d
10:05 * fleet-frozen f at=10:04        | a: frozen none since=10:04 ; b: frozen none since=10:04 ; c: frozen heartbeat-only since=10:04 ; d: frozen none since=10:04
10:06 * restart                        | a: frozen none changes=0 ; d: frozen none changes=0
10:07 * fleet-unfrozen f               | a: configuring none since=10:07 ; c: online heartbeat-only since=10:07 ; d: configuring none since=10:07

== Frozen in the very millisecond in which the heartbeat expires
10:00    a heartbeat
10:22:45 a frozen           | frozen none since=10:22:45 links=10:22:45 emits=offline/none,frozen/none

== A fleet's freeze, told late: for who is in the fleet now, no earlier than they exist
10:00 a registered f
10:10 a moved g
10:10 b registered f
10:20 * fleet-frozen f at=10:05         | a: configuring none changes=0 ; b: frozen none since=10:10

== An organization's thaw, told late
10:00 a registered f org=o
10:01 * organization-frozen o           | frozen none since=10:01
10:20 * organization-unfrozen o at=10:10 | configuring none since=10:10 cause=unfrozen

== Two reasons lifted, told late and in the wrong order: thawed since the later
10:00 a registered f
10:01 a frozen allowance
10:02 a frozen other
10:10 a unfrozen other at=10:08         | frozen none changes=0
10:11 a unfrozen allowance at=10:05     | configuring none since=10:08 cause=unfrozen

== A thaw, told when the heartbeat has run out meanwhile: offline since it did
10:00 a heartbeat
10:05 a frozen                          | frozen heartbeat-only
10:30 * wait                            | frozen none links=10:22:45
10:31 a unfrozen at=10:10               | offline none since=10:22:45 cause=heartbeat-expired

== Frozen again each night: since the first
10:00    a registered f
10:00    a heartbeat interval=30d                | online heartbeat-only
10:05    * fleet-frozen f overdue-invoices       | frozen heartbeat-only since=10:05
1d+02:00 * fleet-frozen f overdue-invoices       | frozen heartbeat-only since=10:05 changes=0
1d+02:01 a frozen allowance                      | frozen heartbeat-only changes=0
1d+12:00 * fleet-unfrozen f                      | frozen heartbeat-only changes=0
2d+02:01 a frozen allowance                      | frozen heartbeat-only since=10:05 changes=0
2d+12:00 a unfrozen allowance                    | online heartbeat-only since=2d+12:00 cause=unfrozen
# Those of the nights are told again.
2d+12:01 a frozen allowance at=2d+02:01          | online heartbeat-only changes=0
2d+12:01 * fleet-frozen f overdue-invoices at=1d+02:00 | online heartbeat-only changes=0
2d+12:02 * restart                               | online heartbeat-only changes=0

== A fleet is its id: two organizations that use one name share it
10:00 a registered f org=o
10:00 b registered f org=p
10:01 * fleet-frozen f                           | a: frozen none since=10:01 ; b: frozen none since=10:01
10:02 * organization-frozen p                    | a: frozen none changes=0 ; b: frozen none changes=0
10:03 * fleet-unfrozen f                         | a: configuring none since=10:03 ; b: frozen none changes=0
