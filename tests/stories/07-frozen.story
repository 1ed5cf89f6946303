# Frozen is per reason and per scope: lifting one leaves the others.
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
