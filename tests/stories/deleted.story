# Deletion, late events, and coming back.

== The deleted are not resurrected by late events, nor by contact
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

== The deletion of a device never heard of is remembered, and emits nothing
10:00 a deleted                   | - changes=0
10:01 a heartbeat interval=15m at=09:59 | - changes=0
10:02 a heartbeat interval=15m    | - changes=0
10:03 a registered f              | online heartbeat-only since=10:03 version=1

== Every late event of a deleted device
10:00 a registered f org=o
10:00 a heartbeat interval=1d
10:05 a deleted                             | - emits=deleted
10:06 a provisioned at=10:01                | - changes=0
10:06 a vpn-opened v1 s1 at=10:02           | - changes=0
10:06 a frozen at=10:03                     | - changes=0
10:06 a moved g at=10:04                    | - changes=0
10:06 a settings interval=1h at=10:04       | - changes=0
10:06 a update-started r1 at=10:04          | - changes=0
10:06 a heartbeat interval=1d at=10:04:59   | - changes=0
# Registered anew, it knows nothing of all that.
10:07 a registered h                        | configuring none since=10:07 version=4 fleet=h

== What came after the deletion waits for the registration
10:00 a heartbeat
10:05 a deleted                   | - emits=deleted
10:06 a frozen                    | - changes=0
10:07 a vpn-opened v1 s1          | - changes=0
10:08 a registered f              | frozen vpn-only since=10:08 cause=registered
10:09 a unfrozen                  | online vpn-only since=10:09

== Deleted and registered anew in one batch: the later in the log
10:00        a registered f       | configuring none
10:00        a heartbeat interval=1d
10:05        a deleted            | - emits=deleted
10:05        a registered g       | configuring none since=10:05 fleet=g
# Sent again, over a restart.
10:06        * restart            | configuring none changes=0
10:06        a deleted at=10:05   | configuring none changes=0 fleet=g
10:06        a registered g at=10:05 | configuring none changes=0 fleet=g
10:07        a registered h       | configuring none fleet=h
10:08        a deleted at=10:05   | configuring none changes=0 fleet=h

== The same where it is preregistered, or frozen, in that batch
10:00        a heartbeat interval=1d
10:05        a deleted            | - emits=deleted
10:05        a preregistered g    | inactive none since=10:05 fleet=g
10:06        a deleted at=10:05   | inactive none changes=0 fleet=g
10:06        a preregistered g at=10:05 | inactive none changes=0 fleet=g
10:07        * restart            | inactive none changes=0 fleet=g
# A freeze of that instant is taken away, and told again.
10:08        b registered f
10:09        b deleted
10:09        b registered g
10:09        b frozen             | b: frozen none fleet=g
10:10        b deleted at=10:09   | b: configuring none fleet=g
10:10        b registered g at=10:09 | b: configuring none changes=0
10:10        b frozen at=10:09    | b: frozen none fleet=g

== Moved, deleted and registered in one batch that is sent again: where it was registered
10:00        a registered f
10:05        a moved h
10:05        a deleted
10:05        a registered g       | configuring none fleet=g
10:06        a moved h at=10:05
10:06        a deleted at=10:05
10:06        a registered g at=10:05 | configuring none fleet=g
10:07        * restart            | configuring none changes=0 fleet=g

== Registered and deleted in one batch: it is gone
10:05        a registered f
10:05        a deleted            | -
10:06        a heartbeat          | - changes=0
# Sent again.
10:07        a registered f at=10:05 | - changes=0
10:07        a deleted at=10:05      | - changes=0
10:08        a registered f       | online heartbeat-only

== Deleted, registered, frozen and set in one batch
10:00        a registered f
10:05        a frozen
10:05        a deleted            | -
10:05        a registered g
10:05        a settings interval=2h
10:05        a deactivated        | inactive none fleet=g
10:06        a heartbeat          | online heartbeat-only
13:06:14     * wait               | online heartbeat-only changes=0
13:06:15     * wait               | offline none since=13:06:15

== Frozen and deleted in one batch that is sent again: the freeze is gone
10:00        a registered f
10:05        a frozen             | frozen none
10:05        a deleted            | -
10:06        a frozen at=10:05    | - changes=0
10:06        a deleted at=10:05   | - changes=0
10:07        a registered f       | configuring none

== Contact in the very millisecond of the deletion does not exist, nor a session
10:00        a registered f
10:05        a deleted            | -
10:05        a heartbeat interval=1d
10:05        a vpn-opened v1 s1   | - changes=0
10:06        a registered f       | configuring none
10:06        a heartbeat interval=1d at=10:05:00.001 | online heartbeat-only

== Two deletions, and the registration between them told last
10:00        a registered f
10:05        a deleted            | -
10:15        a deleted            | - changes=0
10:16        a registered f at=10:10 | - changes=0
10:17        a registered f       | configuring none

== A deletion that is older than the floor, told after the registration
10:00        a deleted at=09:50   | -
10:01        a registered f       | configuring none
10:02        a deleted at=09:40   | configuring none changes=0
10:03        a heartbeat interval=1d at=09:45 | configuring none changes=0

== A deletion that arrives after the registration that followed it
10:00 a registered f              | configuring none version=1
10:01 a heartbeat interval=1d     | online heartbeat-only
10:10 a registered g              | online heartbeat-only fleet=g changes=1 cause=moved
# It takes away what was before: the contact.
10:11 a deleted at=10:05          | configuring none fleet=g

== A deletion that arrives after contact and a new registration
10:00 a registered f
10:01 a heartbeat interval=1d     | online heartbeat-only
10:10 a registered g
10:10 a heartbeat interval=1d
10:11 a deleted at=10:05          | online heartbeat-only changes=0

== A deletion that is older than the registration, told first
10:00 a deleted at=09:00          | -
10:01 a registered f              | configuring none version=1
10:02 a deleted at=09:30          | configuring none changes=0

== Deleted twice
10:00 a registered f
10:05 a deleted                   | - emits=deleted version=-
10:06 a deleted                   | - changes=0
10:07 a registered f              | configuring none version=3

== Deleted and registered again and again: the versions go on
10:00 a registered f              | configuring none version=1
10:01 a deleted                   | - emits=deleted
10:02 a registered f              | configuring none version=3 since=10:02
10:03 a deleted                   | - emits=deleted
10:04 a registered f              | configuring none version=5 since=10:04

== The deletion of a device ends its freezes, settings and sessions
10:00 a registered f
10:01 a frozen
10:01 a settings interval=1d vpn=off
10:01 a vpn-opened v1 s1          | frozen vpn-only
10:05 a deleted                   | - emits=deleted
10:06 a registered f              | configuring none
10:07 a heartbeat                 | online heartbeat-only
10:29:45 * wait                   | offline none since=10:29:45

== A fleet's freeze outlives the device, and meets it when it returns
10:00 a registered f
10:05 a deleted
10:06 * fleet-frozen f            | - changes=0
10:07 a registered f              | frozen none since=10:07

== A close from before the deletion is forgotten with it
10:00 a vpn-opened v1 s1
10:01 a vpn-closed v1 s1          | offline none
10:02 a deleted                   | -
10:03 a registered f              | configuring none
10:04 a vpn-opened v1 s1          | online vpn-only since=10:04

== A deletion is remembered for a day
10:00           a registered f
10:01           a deleted                        | -
1d+10:00:59.999 * wait                           | - changes=0
1d+10:01        * wait                           | - changes=0
1d+10:02        a heartbeat                      | online heartbeat-only version=1

== A deleted device that goes on polling stays deleted
10:00    a registered f
10:01    a deleted                        | -
22:00    a heartbeat                      | - changes=0
1d+10:02 a heartbeat                      | - changes=0
2d+09:00 a heartbeat                      | - changes=0
2d+09:01 a registered f                   | online version=3

== A deletion is remembered a day longer than the last event that it kept out
10:00    a registered f
10:01    a deleted                     | -
20:00    a heartbeat at=10:00          | - changes=0
1d+10:02 a heartbeat                   | - changes=0
1d+19:59 a heartbeat at=10:00          | - changes=0
2d+19:59 * wait
2d+20:00 a heartbeat                   | online heartbeat-only version=1

== A deletion is remembered across a restart
10:00 a registered f
10:01 a heartbeat interval=1d
10:05 a deleted                        | -
10:06 * restart                        | - changes=0
10:07 a heartbeat interval=1d at=10:02 | - changes=0
10:08 a registered f                   | configuring none version=4

== A shorter retention forgets sooner
09:00 * restart retention=1h
10:00 a registered f
10:01 a deleted                        | -
11:02 a heartbeat                      | online heartbeat-only version=1

== Deleted in the very millisecond in which the heartbeat expires
10:00    a heartbeat
10:22:45 a deleted                     | - emits=offline/none,deleted

== A deletion that is older than the last change, told late
10:00    a heartbeat
10:30    * wait                        | offline none since=10:22:45
10:31    a deleted at=10:10            | - emits=deleted

== A registration that is told after the contact that followed it
10:00    a heartbeat interval=1d
10:05    a deleted                     | -
10:06    a heartbeat interval=1d       | -
10:10    a registered f at=10:07       | online heartbeat-only since=10:07

== Contact after the deletion, over when the device is registered
10:00    a deleted
10:01    a heartbeat interval=10m      | -
10:30    a registered f                | offline none since=10:30

== A deleted device that polls once a month stays deleted
10:00        a registered f
10:00        a heartbeat interval=31d    | online heartbeat-only
10:01        a deleted                   | - emits=deleted
31d+10:00    a heartbeat interval=31d    | - changes=0
31d+10:01    * restart                   | - changes=0
62d+10:00    a heartbeat interval=31d    | - changes=0
93d+10:00    a heartbeat interval=31d    | - changes=0
93d+10:01    a registered f              | online heartbeat-only version=4

== A deleted device whose fleet polls once a month stays deleted
10:00        * fleet-settings f interval=31d
10:00        a registered f
10:01        a heartbeat                 | online heartbeat-only
10:05        a deleted                   | -
31d+10:00    a heartbeat                 | - changes=0
62d+10:00    a heartbeat                 | - changes=0

== A deletion that is told first, of a device whose polls tell their interval
10:00        a deleted                   | -
20:00        a heartbeat interval=31d    | - changes=0
31d+20:00    a heartbeat interval=31d    | - changes=0
# Three intervals after the last of them it is forgotten.
130d+20:00   * wait
130d+20:01   a heartbeat interval=31d    | online heartbeat-only version=1

== A deletion that is told late is remembered for its own polls
10:00        a heartbeat interval=2d     | online heartbeat-only
10:10        a deleted at=10:05          | - emits=deleted
2d+10:00     a heartbeat interval=2d     | - changes=0
4d+10:00     a heartbeat interval=2d     | - changes=0

== Deleted again each night
10:00    a registered f
10:01    a deleted                               | - emits=deleted
1d+02:00 a deleted                               | - changes=0
2d+01:59 a deleted                               | - changes=0
2d+12:00 a heartbeat                             | - changes=0
2d+12:01 * restart                               | - changes=0
3d+02:00 a registered f                          | offline none since=3d+02:00 version=3
