use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use proptest::prelude::*;

use super::*;

const T0: i64 = 1_760_000_000_000;

fn at(ms: i64) -> Timestamp {
    Timestamp(T0 + ms)
}

impl Wheel {
    /// The number of entries, including stale ones.
    pub(in crate::shard) fn len(&self) -> usize {
        let levels = std::iter::zip(&self.occupied, self.slots.iter());
        let occupied = levels.filter(|(slots, _)| **slots != 0);
        let firsts = occupied.flat_map(|(_, slots)| *slots);
        firsts.chain([self.overdue]).map(|first| self.entries_from(first)).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of entries in this chunk and the following ones.
    fn entries_from(&self, first: ChunkId) -> usize {
        let chunk = |id: ChunkId| {
            &self.chunks.pages[id.0 as usize / PAGE_CHUNKS][id.0 as usize % PAGE_CHUNKS]
        };
        let some = |id: ChunkId| (!id.is_none()).then(|| chunk(id));
        let chunks = std::iter::successors(some(first), |held| some(held.next));
        chunks.map(|held| held.len as usize).sum()
    }
}

/// A wheel and its rows, which know where they are filed.
#[derive(Clone)]
struct Rows {
    wheel: Wheel,
    filed: HashMap<u32, Timestamp>,
}

impl Rows {
    fn new(position: Timestamp) -> Rows {
        Rows { wheel: Wheel::new(position), filed: HashMap::new() }
    }

    fn file(&mut self, row: u32, at: Timestamp) {
        self.filed.insert(row, at);
        self.wheel.file(row, at);
    }

    /// An entry that was handed out is no longer filed.
    fn advance(&mut self, to: Timestamp, budget: usize, due: &mut Vec<(u32, Timestamp)>) -> usize {
        let before = due.len();
        let spent = self.wheel.advance(to, budget, |row| self.filed.get(&row).copied(), due);
        for (row, _) in &due[before..] {
            self.filed.remove(row);
        }
        spent
    }
}

impl Deref for Rows {
    type Target = Wheel;

    fn deref(&self) -> &Wheel {
        &self.wheel
    }
}

/// Advances with so large a budget that everything due comes at once.
fn all_due(wheel: &mut Rows, to: Timestamp) -> Vec<(u32, Timestamp)> {
    let mut due = Vec::new();
    while wheel.position() < to {
        wheel.advance(to, 1_000_000, &mut due);
    }
    due
}

#[test]
fn a_timer_fires_in_its_millisecond_and_not_before() {
    for delay_ms in [1, 2, 63, 64, 65, 4095, 4096, 1_365_000, 907_200_000, 40_000_000_000] {
        let mut wheel = Rows::new(at(0));
        wheel.file(7, at(delay_ms));
        assert_eq!(all_due(&mut wheel, at(delay_ms - 1)), []);
        assert_eq!(wheel.position(), at(delay_ms - 1));
        assert_eq!(all_due(&mut wheel, at(delay_ms)), [(7, at(delay_ms))]);
        assert!(wheel.is_empty());
    }
}

#[test]
fn a_new_shard_whose_clock_stands_at_the_epoch_files_rows_of_today() {
    let mut wheel = Rows::new(Timestamp::MIN);
    wheel.file(1, at(60_000));
    wheel.file(2, at(30_000));
    assert!(wheel.next_due().unwrap() <= at(30_000));
    assert_eq!(all_due(&mut wheel, at(0)), []);
    assert_eq!(all_due(&mut wheel, at(60_000)), [(2, at(30_000)), (1, at(60_000))]);
}

#[test]
fn entry_filed_too_late_fires_at_the_next_advance_with_its_own_time() {
    let mut wheel = Rows::new(at(100));
    wheel.file(1, at(150));
    wheel.file(2, at(100));
    wheel.file(3, Timestamp::MIN);
    let mut due = Vec::new();
    assert_eq!(wheel.next_due(), Some(at(100)));
    assert_eq!(wheel.advance(at(100), 10, &mut due), 2);
    due.sort_unstable();
    assert_eq!(due, [(2, at(100)), (3, Timestamp::MIN)]);
    assert_eq!(wheel.position(), at(100));
}

#[test]
fn a_position_never_covers_what_the_budget_left_behind() {
    let mut wheel = Rows::new(at(0));
    for row in 0..3 {
        wheel.file(row, at(10));
    }
    wheel.file(3, at(11));
    let mut due = Vec::new();
    assert_eq!(wheel.advance(at(1_000), 2, &mut due), 2);
    assert_eq!(wheel.position(), at(9), "one row of that millisecond is still here");
    wheel.advance(at(1_000), 1, &mut due);
    assert_eq!((due.len(), wheel.position()), (3, at(10)));
    wheel.advance(at(1_000), 1, &mut due);
    assert_eq!(due.len(), 4);
    assert!(wheel.position() <= at(1_000));
    assert_eq!(wheel.advance(at(1_000), 1, &mut due), 0);
    assert_eq!(wheel.position(), at(1_000));
}

#[test]
fn a_row_filed_again_while_its_millisecond_is_handed_out_is_not_lost() {
    let mut wheel = Rows::new(at(0));
    wheel.file(1, at(10));
    wheel.file(2, at(10));
    let mut due = Vec::new();
    wheel.advance(at(10), 1, &mut due);
    wheel.file(3, at(10));
    wheel.advance(at(10), 10, &mut due);
    let mut rows: Vec<u32> = due.iter().map(|&(row, _)| row).collect();
    rows.sort_unstable();
    assert_eq!(rows, [1, 2, 3]);
    assert_eq!(wheel.position(), at(10));
}

#[test]
fn entry_filed_elsewhere_is_dropped_and_a_double_entry_comes_once() {
    let mut wheel = Rows::new(at(0));
    wheel.file(1, at(900_000));
    wheel.file(1, at(500));
    wheel.file(2, at(900_000));
    assert_eq!(wheel.len(), 3);
    assert_eq!(all_due(&mut wheel, at(600)), [(1, at(500))]);
    wheel.file(1, at(900_001));
    let mut due = all_due(&mut wheel, at(1_000_000));
    due.sort_unstable();
    due.dedup();
    assert_eq!(due, [(1, at(900_001)), (2, at(900_000))]);
    assert!(wheel.is_empty());
}

#[test]
fn a_crowd_that_only_moves_spends_the_budget_too() {
    let mut wheel = Rows::new(at(0));
    for row in 0..10_000 {
        wheel.file(row, at(1_365_000 + i64::from(row)));
    }
    let (mut due, mut spent, mut turns) = (Vec::new(), 0, 0);
    while wheel.position() < at(1_364_999) {
        spent += wheel.advance(at(1_364_999), 100, &mut due);
        turns += 1;
    }
    // Each entry has moved down once or twice.
    assert!(due.is_empty() && (2_500..=5_100).contains(&spent), "{spent} spent");
    assert!(turns >= 25, "{turns} turns");
}

#[test]
fn a_crowd_due_in_one_coarse_slot_moves_within_the_budget_of_each_turn() {
    const CROWD: u32 = 200_000;
    let mut wheel = Rows::new(at(0));
    for row in 0..CROWD {
        wheel.file(row, at(1_365_000 + i64::from(row % 200)));
    }
    let in_slots_below = |wheel: &Rows, level: usize| -> usize {
        wheel.slots[..level].iter().flatten().map(|&first| wheel.entries_from(first)).sum()
    };
    let (mut due, mut turns, to) = (Vec::new(), 0, at(1_500_000));
    let mut before = in_slots_below(&wheel, 3);
    while wheel.position() < to {
        let before_turn = due.len();
        assert!(wheel.advance(to, 1_000, &mut due) <= 1_000);
        assert!(due.len() - before_turn <= 1_000);
        let now = in_slots_below(&wheel, 3);
        assert!(now <= before + 4_000, "too many went down in one turn");
        before = now;
        turns += 1;
    }
    assert_eq!(due.len(), CROWD as usize);
    assert!(due.is_sorted_by_key(|&(_, at)| at));
    assert!(turns <= 400, "took {turns} turns");
}

#[test]
fn an_entry_takes_four_bytes_and_its_room_is_used_again() {
    assert_eq!(size_of::<Chunk>(), 256);
    let mut wheel = Rows::new(at(0));
    for round in 0..5 {
        for row in 0..100_000 {
            wheel.file(row, at(round * 2_000_000 + i64::from(row) * 10 + 1));
        }
        assert_eq!(all_due(&mut wheel, at((round + 1) * 2_000_000)).len(), 100_000);
    }
    let bytes = wheel.chunks.pages.len() * PAGE_CHUNKS * size_of::<Chunk>();
    assert!(bytes <= 100_000 * 9 / 2 + LEVELS * SLOTS * size_of::<Chunk>(), "{bytes} bytes");
}

#[test]
fn the_last_time_that_a_row_can_hold_fires_and_none_after_it_is_filed() {
    let mut wheel = Rows::new(at(0));
    wheel.file(1, Timestamp(i64::MAX));
    wheel.file(2, Timestamp(HORIZON_MS));
    wheel.file(3, Timestamp(HORIZON_MS - 1));
    let mut due = Vec::new();
    wheel.advance(Timestamp(HORIZON_MS - 2), 10, &mut due);
    assert_eq!(due, []);
    wheel.advance(Timestamp(i64::MAX), 10, &mut due);
    assert_eq!(due, [(3, Timestamp(HORIZON_MS - 1))]);
    assert!(wheel.is_empty());
    wheel.file(4, Timestamp(HORIZON_MS - 1));
    assert_eq!(wheel.advance(Timestamp(i64::MAX), 10, &mut due), 1, "it is overdue");
    let mut before_the_epoch = Rows::new(Timestamp(i64::MIN));
    before_the_epoch.file(1, Timestamp(i64::MIN));
    assert_eq!(before_the_epoch.advance(Timestamp::MIN, 1, &mut due), 1);
}

/// An operation on a wheel.
#[derive(Clone, Debug)]
enum Step {
    /// Files an entry so long after the target of the last advance.
    File(i64),
    /// Advances by so much, with this budget.
    Advance(i64, usize),
}

fn delays() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => -100..100i64,
        4 => 0..5_000i64,
        4 => 0..2_000_000i64,
        2 => 0..20_000_000_000i64,
        1 => 0..(1i64 << 47),
        // Edges of slots.
        3 => (0..48u32, -1..=1i64).prop_map(|(bit, off)| (1i64 << bit) + off),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => delays().prop_map(Step::File),
        1 => (delays(), prop_oneof![0..3usize, 0..200usize])
            .prop_map(|(delay, budget)| Step::Advance(delay.max(0), budget)),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// The wheel against a sorted map that hands out everything in order.
    #[test]
    fn the_wheel_equals_a_sorted_map(
        start in prop_oneof![Just(0), Just(T0), (1i64 << 36) - 3..(1 << 36), 0..HORIZON_MS],
        steps in steps(),
    ) {
        let mut wheel = Rows::new(Timestamp(start));
        // (time, row) of the filed entries; separately, those filed too late.
        let mut model: BTreeMap<(i64, u32), ()> = BTreeMap::new();
        let mut overdue: Vec<(i64, u32)> = Vec::new();
        let mut target = start;
        let mut steps = steps;
        // At the end everything comes out.
        steps.extend((0..40).map(|bit| Step::Advance(1 << bit, 100)));
        steps.extend((0..10_000).map(|_| Step::Advance(1 << 44, 100)));
        for (row, step) in (0..).zip(steps) {
            match step {
                Step::File(delay) => {
                    let at = target.saturating_add(delay).min(HORIZON_MS - 1);
                    if at <= wheel.position().0 {
                        overdue.push((at, row));
                    } else {
                        model.insert((at, row), ());
                    }
                    wheel.file(row, Timestamp(at));
                }
                Step::Advance(delay, budget) => {
                    target = target.saturating_add(delay);
                    let position = wheel.position();
                    let mut due = Vec::new();
                    let spent = wheel.advance(Timestamp(target), budget, &mut due);
                    prop_assert!(due.len() <= spent && spent <= budget);
                    let late = overdue.len().min(budget);
                    for &(row, at) in &due[..late] {
                        let held = overdue.iter().position(|held| *held == (at.0, row));
                        prop_assert!(held.is_some(), "not overdue");
                        overdue.swap_remove(held.unwrap_or_default());
                    }
                    let on_time = &due[late..];
                    prop_assert!(on_time.is_sorted_by_key(|&(_, at)| at));
                    for &(row, at) in on_time {
                        prop_assert!(at.0 <= target, "early");
                        prop_assert!(model.remove(&(at.0, row)).is_some(), "not filed so");
                        // No later entry comes before an earlier one.
                        if let Some((&(first, _), ())) = model.first_key_value() {
                            prop_assert!(first >= at.0);
                        }
                    }
                    prop_assert!(wheel.position() >= position, "went back");
                    prop_assert!(wheel.position().0 <= target.max(start));
                }
            }
            prop_assert_eq!(wheel.len(), model.len() + overdue.len());
            let earliest = model.keys().next().map(|&(at, _)| at);
            if let Some(earliest) = earliest {
                prop_assert!(wheel.position().0 < earliest, "passed one that is left");
            }
            match wheel.next_due() {
                None => prop_assert!(wheel.is_empty()),
                Some(bound) if overdue.is_empty() => {
                    prop_assert!(bound > wheel.position());
                    prop_assert!(earliest.is_some_and(|earliest| bound.0 <= earliest));
                }
                Some(bound) => prop_assert!(bound <= wheel.position()),
            }
            if row > 240 && wheel.is_empty() {
                break;
            }
        }
        prop_assert!(wheel.is_empty());
    }

    /// Small budgets hand out the same as one large one, however often.
    #[test]
    fn a_budget_delays_but_changes_nothing(
        delays in prop::collection::vec(1..10_000_000i64, 1..300),
        budget in 1..20usize,
    ) {
        let (mut wheel, mut due) = (Rows::new(at(0)), Vec::new());
        for (row, &delay) in (0..).zip(&delays) {
            wheel.file(row, at(delay));
        }
        let mut whole = all_due(&mut wheel.clone(), at(10_000_000));
        let mut turns = 0;
        while wheel.position() < at(10_000_000) {
            wheel.advance(at(10_000_000), budget, &mut due);
            turns += 1;
            prop_assert!(turns <= 10 * delays.len() + 10, "does not get on");
        }
        due.sort_unstable();
        whole.sort_unstable();
        prop_assert_eq!(due, whole);
    }
}
