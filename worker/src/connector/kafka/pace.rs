//! Whose turn it is: the lane that is furthest behind in event time, of those that have records.
//!
//! One that is ahead waits for one behind whose records are on their way, but not for ever; a few records wait a moment
//! for more. Lanes at the same watermark take turns. Knows lanes only as numbers: the records are the caller's.

/// Longest answer of `Wait`.
pub const WAIT_MS: i64 = 10;

/// Records that are fewer than [`RUSH`] wait so long for others: batches of a few rows cost as much as large ones.
const PAUSE_MS: i64 = 5;
const RUSH: usize = 1024;

/// A lane whose records are on their way is waited for so long by those that are ahead of it.
const PATIENCE_MS: i64 = 100;

/// What the choice remembers of a lane.
#[derive(Debug, Default)]
pub struct Pace {
    /// Nothing more was there when it was read last.
    pub at_end: bool,
    /// Since when it has had nothing to read.
    dry_since: Option<i64>,
    read_at: i64,
    /// Which reading of all it was.
    turn: u64,
}

impl Pace {
    /// It is read now; `turn` grows with each reading of any lane.
    pub fn read(&mut self, turn: u64, now_ms: i64) {
        (self.turn, self.read_at) = (turn, now_ms);
    }
}

/// A lane that is open.
pub struct Standing<'a> {
    pub lane: usize,
    pub pace: &'a mut Pace,
    /// Records that can be read now.
    pub ready: usize,
    /// i64::MIN before its first.
    pub watermark: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    Read(usize),
    Wait(i64),
}

pub fn choose<'a>(lanes: impl Iterator<Item = Standing<'a>>, now_ms: i64) -> Choice {
    let mut best: Option<(i64, u64, usize)> = None;
    let mut wait = WAIT_MS;
    // The watermark of the last lane whose records are on their way.
    let mut missed = i64::MAX;
    for Standing { lane, pace, ready, watermark } in lanes {
        if ready == 0 {
            let since = *pace.dry_since.get_or_insert(now_ms);
            if !pace.at_end && now_ms - since < PATIENCE_MS {
                missed = missed.min(watermark);
            }
            continue;
        }
        pace.dry_since = None;
        let rests = PAUSE_MS - (now_ms - pace.read_at);
        if ready < RUSH && rests > 0 {
            wait = wait.min(rests);
            continue;
        }
        let candidate = (watermark, pace.turn, lane);
        if best.is_none_or(|best| candidate < best) {
            best = Some(candidate);
        }
    }
    match best {
        Some((watermark, _, lane)) if watermark <= missed => Choice::Read(lane),
        Some(_) => Choice::Wait(1),
        None => Choice::Wait(wait.clamp(1, WAIT_MS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    /// (ready, watermark) of each.
    fn choice(paces: &mut [Pace], lanes: &[(usize, i64)], now_ms: i64) -> Choice {
        let lanes = lanes.iter().zip(paces).enumerate();
        choose(lanes.map(|(lane, (&(ready, watermark), pace))| Standing { lane, pace, ready, watermark }), now_ms)
    }

    fn paces(count: usize) -> Vec<Pace> {
        (0..count).map(|_| Pace::default()).collect()
    }

    #[test]
    fn lane_that_is_ahead_waits_for_one_behind_but_not_for_ever() {
        let mut two = paces(2);
        assert_eq!(choice(&mut two, &[(5000, 7), (0, 3)], 1000), Choice::Wait(1));
        assert_eq!(choice(&mut two, &[(5000, 7), (0, 3)], 1000 + PATIENCE_MS - 1), Choice::Wait(1));
        assert_eq!(choice(&mut two, &[(5000, 7), (0, 3)], 1000 + PATIENCE_MS), Choice::Read(0));
        assert_eq!(choice(&mut two, &[(5000, 7), (1, 3)], 1200), Choice::Read(1));
        // It is dry anew, and waited for anew; not where it has told that nothing more is there.
        assert_eq!(choice(&mut two, &[(5000, 7), (0, 3)], 1201), Choice::Wait(1));
        two[1].at_end = true;
        assert_eq!(choice(&mut two, &[(5000, 7), (0, 3)], 1202), Choice::Read(0));
        assert_eq!(choice(&mut two, &[(0, 7), (0, 3)], 1203), Choice::Wait(WAIT_MS));
    }

    #[test]
    fn few_records_wait_a_moment_for_more() {
        let mut one = paces(1);
        one[0].read(1, 1000);
        assert_eq!(choice(&mut one, &[(RUSH - 1, 0)], 1001), Choice::Wait(PAUSE_MS - 1));
        assert_eq!(choice(&mut one, &[(RUSH, 0)], 1001), Choice::Read(0));
        assert_eq!(choice(&mut one, &[(1, 0)], 1000 + PAUSE_MS), Choice::Read(0));
    }

    #[test]
    fn lanes_of_one_watermark_take_turns() {
        let mut three = paces(3);
        for turn in 1..=9 {
            let Choice::Read(lane) = choice(&mut three, &[(5000, i64::MIN); 3], 1000) else { panic!("all are full") };
            assert_eq!(lane as u64, (turn - 1) % 3);
            three[lane].read(turn, 1000);
        }
    }

    /// Lanes whose records arrive by chance, until all are read: what `choose` did wrong, if anything.
    fn drive(seed: u64, choose: fn(&mut [Pace], &[(usize, i64)], i64) -> Choice) -> Result<(), String> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = rng.random_range(1..6);
        let mut paces = paces(count);
        let mut coming: Vec<usize> = (0..count).map(|_| rng.random_range(0..30_000)).collect();
        let (mut lanes, mut dry) = (vec![(0, i64::MIN); count], vec![None; count]);
        let (mut turn, mut now) = (0, 1000);
        for _ in 0..100_000 {
            if coming.iter().all(|records| *records == 0) && lanes.iter().all(|(ready, _)| *ready == 0) {
                return Ok(());
            }
            for lane in 0..count {
                let fetched = if rng.random_bool(0.1) { rng.random_range(0..=coming[lane].min(4000)) } else { 0 };
                coming[lane] -= fetched;
                lanes[lane].0 += fetched;
                dry[lane] = if lanes[lane].0 > 0 { None } else { dry[lane].or(Some(now)) };
            }
            match choose(&mut paces, &lanes, now) {
                Choice::Read(chosen) => {
                    let (ready, mine) = lanes[chosen];
                    if ready == 0 {
                        return Err(format!("seed {seed}: lane {chosen} has nothing"));
                    }
                    for (lane, &(ready, watermark)) in lanes.iter().enumerate().filter(|lane| lane.1.1 < mine) {
                        let dry_shortly = dry[lane].is_some_and(|since| now - since < PATIENCE_MS);
                        if ready >= RUSH || dry_shortly && !paces[lane].at_end {
                            return Err(format!("seed {seed}: {chosen} at {mine} before {lane} at {watermark}"));
                        }
                    }
                    let taken = ready.min(8192);
                    turn += 1;
                    paces[chosen].read(turn, now);
                    paces[chosen].at_end = taken == ready && coming[chosen] == 0;
                    lanes[chosen] = (ready - taken, mine.max(0) + rng.random_range(0..=taken as i64));
                }
                Choice::Wait(ms) if (1..=WAIT_MS).contains(&ms) => now += ms,
                Choice::Wait(ms) => return Err(format!("seed {seed}: a wait of {ms} ms")),
            }
            now += rng.random_range(0..3);
        }
        Err(format!("seed {seed}: {coming:?} and {lanes:?} are left at {now}"))
    }

    #[test]
    fn whatever_arrives_when_the_furthest_behind_is_read_and_every_record_at_last() {
        (0..300).try_for_each(|seed| drive(seed, choice)).expect("in order");
    }

    #[test]
    fn choices_that_forget_the_order_or_a_lane_are_caught() {
        let first_come = |_: &mut [Pace], lanes: &[(usize, i64)], _| {
            lanes.iter().position(|(ready, _)| *ready > 0).map_or(Choice::Wait(1), Choice::Read)
        };
        assert!((0..300).try_for_each(|seed| drive(seed, first_come)).is_err());
        let never_few = |paces: &mut [Pace], lanes: &[(usize, i64)], now| {
            let many: Vec<_> = lanes.iter().map(|&(ready, at)| (if ready < RUSH { 0 } else { ready }, at)).collect();
            choice(paces, &many, now)
        };
        let error = (0..300).try_for_each(|seed| drive(seed, never_few)).expect_err("few are left for ever");
        assert!(error.contains("are left at"), "{error}");
    }
}
