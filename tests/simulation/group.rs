//! The group's coordinator: of the protocol of KIP-848 (members keep what they
//! have, the rest moves) and of the classic one (everybody gives back
//! everything, then all are given theirs).

use std::collections::{BTreeMap, BTreeSet};

/// A member as the coordinator knows it.
#[derive(Debug, Default)]
pub struct Member {
    pub epoch: u32,
    pub owned: BTreeSet<i32>,
    pub target: BTreeSet<i32>,
    pub heard_at: i64,
    /// Classic: waits for the others to have given back theirs.
    joined: bool,
}

/// Assignments are co-partitioned; `owned` and `target` are partition numbers.
#[derive(Debug)]
pub struct Group {
    pub partitions: i32,
    pub epoch: u32,
    pub members: BTreeMap<u64, Member>,
    next_member: u64,
    pub session_timeout_ms: i64,
    pub classic: bool,
    /// Classic: not all have joined.
    preparing: bool,
}

/// What a heartbeat is answered.
#[derive(Debug, PartialEq)]
pub enum HeartbeatAnswer {
    Unknown,
    Nothing,
    Revoke(BTreeSet<i32>),
    Assign(BTreeSet<i32>),
}

impl Group {
    pub fn new(partitions: i32, session_timeout_ms: i64, classic: bool) -> Group {
        Group {
            partitions,
            epoch: 0,
            members: BTreeMap::new(),
            next_member: 0,
            session_timeout_ms,
            classic,
            preparing: false,
        }
    }

    /// Whether a commit of this member, at this epoch, is taken.
    pub fn knows(&self, (id, epoch): (u64, u32)) -> bool {
        self.members.get(&id).is_some_and(|known| known.epoch == epoch)
    }

    pub fn join(&mut self, now: i64) -> (u64, u32) {
        self.next_member += 1;
        let id = self.next_member;
        let joined = self.classic;
        self.members.insert(id, Member { heard_at: now, joined, ..Member::default() });
        self.rebalance();
        if self.classic {
            return (id, 0);
        }
        let epoch = self.epoch;
        self.members.get_mut(&id).expect("just added").epoch = epoch;
        (id, epoch)
    }

    pub fn leave(&mut self, id: u64) {
        if self.members.remove(&id).is_some() {
            self.rebalance();
        }
    }

    pub fn evict(&mut self, now: i64) -> Vec<u64> {
        let timeout = self.session_timeout_ms;
        let gone: Vec<u64> = self
            .members
            .iter()
            .filter(|(_, member)| now - member.heard_at > timeout)
            .map(|(id, _)| *id)
            .collect();
        for id in &gone {
            self.members.remove(id);
        }
        if !gone.is_empty() {
            self.rebalance();
        }
        gone
    }

    fn rebalance(&mut self) {
        if self.classic {
            self.preparing = true;
        } else {
            self.epoch += 1;
            self.move_little();
        }
    }

    /// Everybody keeps what they may; the rest goes to who has least.
    fn move_little(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let count = i32::try_from(self.members.len()).expect("few members");
        let most = (self.partitions + count - 1) / count;
        let mut free: BTreeSet<i32> = (0..self.partitions).collect();
        for member in self.members.values_mut() {
            let kept = member.target.iter().copied().filter(|p| free.contains(p));
            member.target = kept.take(most as usize).collect();
            for partition in &member.target {
                free.remove(partition);
            }
        }
        for partition in free {
            let least = self.members.values_mut().min_by_key(|member| member.target.len());
            least.expect("members").target.insert(partition);
        }
    }

    /// Classic, all have joined: ranges of partitions, in the members' order.
    fn deal_ranges(&mut self) {
        self.preparing = false;
        self.epoch += 1;
        let count = i32::try_from(self.members.len()).expect("few members");
        let mut next = 0;
        for (index, member) in (0..).zip(self.members.values_mut()) {
            let share = self.partitions / count + i32::from(index < self.partitions % count);
            member.target = (next..next + share).collect();
            member.epoch = self.epoch;
            next += share;
        }
    }

    /// `revoked`: what the member has given back since its last heartbeat.
    pub fn heartbeat(&mut self, id: u64, revoked: &BTreeSet<i32>, now: i64) -> HeartbeatAnswer {
        let Some(member) = self.members.get_mut(&id) else { return HeartbeatAnswer::Unknown };
        member.heard_at = now;
        for partition in revoked {
            member.owned.remove(partition);
        }
        if self.classic { self.classic_heartbeat(id) } else { self.consumer_heartbeat(id) }
    }

    fn classic_heartbeat(&mut self, id: u64) -> HeartbeatAnswer {
        let Some(member) = self.members.get_mut(&id) else { return HeartbeatAnswer::Unknown };
        if self.preparing {
            if !member.owned.is_empty() {
                return HeartbeatAnswer::Revoke(member.owned.clone());
            }
            member.joined = true;
            if self.members.values().all(|member| member.joined) {
                self.deal_ranges();
            }
        }
        let Some(member) = self.members.get_mut(&id) else { return HeartbeatAnswer::Unknown };
        if self.preparing || !member.joined {
            return HeartbeatAnswer::Nothing;
        }
        member.joined = false;
        member.owned = member.target.clone();
        HeartbeatAnswer::Assign(member.target.clone())
    }

    fn consumer_heartbeat(&mut self, id: u64) -> HeartbeatAnswer {
        let group_epoch = self.epoch;
        let Some(member) = self.members.get_mut(&id) else { return HeartbeatAnswer::Unknown };
        let revoke: BTreeSet<i32> = member.owned.difference(&member.target).copied().collect();
        if !revoke.is_empty() {
            return HeartbeatAnswer::Revoke(revoke);
        }
        member.epoch = group_epoch;
        let wanted: BTreeSet<i32> = member.target.difference(&member.owned).copied().collect();
        let taken: BTreeSet<i32> =
            self.members.values().flat_map(|other| other.owned.iter().copied()).collect();
        let given: BTreeSet<i32> = wanted.difference(&taken).copied().collect();
        if given.is_empty() {
            return HeartbeatAnswer::Nothing;
        }
        let member = self.members.get_mut(&id).expect("just found");
        member.owned.extend(given.iter().copied());
        HeartbeatAnswer::Assign(given)
    }
}
