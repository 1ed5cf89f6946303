//! Which keys are on the same server.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use redis::cluster_routing::Slot;

use super::keys::Keys;

/// How many names are tried to find keys for all nodes. A node with the
/// fewest slots there can be is found with the certainty of `1 - e^-12`.
const NAMES_MAX: u32 = 200_000;

/// How many slots a cluster has.
pub const SLOTS: u16 = 16_384;

/// Who has which slots.
pub type Slots = Arc<HashMap<Slot, u16, foldhash::fast::FixedState>>;

/// Which keys are on the same server (rule V4).
#[derive(Clone, Debug, Default)]
pub struct Layout(Option<Slots>);

impl Layout {
    /// The layout of a cluster; without slots, of a server that has all keys.
    #[must_use]
    pub fn new(slots: Option<Slots>) -> Layout {
        Layout(slots)
    }

    /// The markers that, with the partition's own, leave no server without one:
    /// numbers for [`Keys::witness`]. None are needed where there is one server,
    /// or where all keys have the same hash tag.
    #[must_use]
    pub fn witnesses(&self, keys: &Keys, partition: i32) -> Vec<u32> {
        let Layout(Some(slots)) = self else { return Vec::new() };
        let node = |key: &str| slots.get(&Slot::for_key(key));
        let mut bare: BTreeSet<&u16> = slots.values().collect();
        if let Some(own) = node(&keys.partition(partition)) {
            bare.remove(own);
        }
        if Slot::for_key(keys.witness(partition, 0)) == Slot::for_key(keys.witness(partition, 1)) {
            return Vec::new();
        }
        let mut witnesses = Vec::new();
        for number in 0..NAMES_MAX {
            if bare.is_empty() {
                break;
            }
            if node(&keys.witness(partition, number)).is_some_and(|node| bare.remove(node)) {
                witnesses.push(number);
            }
        }
        witnesses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layout in which the nodes share the slots out evenly.
    fn layout(nodes: u16) -> Layout {
        let slots = (0..SLOTS).filter_map(Slot::new).zip(0..);
        let share = SLOTS / nodes;
        let slots = slots.map(|(slot, n): (Slot, u16)| (slot, (n / share).min(nodes - 1)));
        Layout(Some(Arc::new(slots.collect())))
    }

    #[test]
    fn every_node_has_a_marker_of_every_partition() {
        let keys = Keys::new("ds:");
        for nodes in [1, 3, 16] {
            let Layout(Some(slots)) = layout(nodes) else { panic!("a cluster") };
            for partition in 0..50 {
                let witnesses = Layout(Some(slots.clone())).witnesses(&keys, partition);
                assert_eq!(witnesses.len(), usize::from(nodes) - 1);
                let names = witnesses.iter().map(|n| keys.witness(partition, *n));
                let names = names.chain([keys.partition(partition)]);
                let covered: BTreeSet<u16> = names.map(|key| slots[&Slot::for_key(key)]).collect();
                assert_eq!(covered.len(), usize::from(nodes));
            }
        }
    }

    #[test]
    fn one_server_and_one_hash_tag_need_no_more_markers() {
        assert!(Layout::default().witnesses(&Keys::new("ds:"), 3).is_empty());
        assert!(layout(3).witnesses(&Keys::new("{ds}:"), 3).is_empty());
    }
}
