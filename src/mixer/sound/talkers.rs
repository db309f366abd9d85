//! The talkers in the mix: all of them, or the loudest if the number is limited.
//!
//! Owns: the smoothed loudness of each talker, and who is in the mix. Does not know: samples, encoders. In: the levels
//! of the talkers in each tick, and the limit. Out: the [`Place`] of each.
//!
//! A talker in the mix keeps its place against others that are not clearly louder, so that places do not change with
//! each syllable. Only a few talkers enter in one tick, because each needs a new encoder, which first encodes earlier
//! ticks: if a hundred begin to talk at once, no tick is late, and the load control has time to follow.

use std::collections::BTreeMap;

use crate::audio::SILENCE;
use crate::id::ParticipantId;

/// A talker outside the mix takes the place of one in it when it is louder by this, in dB.
const CLEARLY_LOUDER: f32 = 6.0;
/// Most talkers that enter the mix in one tick.
const ENTER_MAX: usize = 8;
/// Fall of the smoothed loudness in dB per tick (15 dB/s): it stays up between syllables.
const FALL: f32 = 0.3;

/// Where a talker is in this tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the mix.
    Mixed,
    /// In the mix from this tick on, after it talked outside: fade in.
    Entering,
    /// In the mix until this tick: fade out.
    Leaving,
    /// Not in the mix.
    Outside,
}

/// The talkers of a room.
#[derive(Debug, Default)]
pub(super) struct Talkers(BTreeMap<ParticipantId, Talker>);

#[derive(Debug, Clone, Copy)]
struct Talker {
    /// In dB above silence.
    loudness: f32,
    mixed: bool,
    /// It talked in the last tick too.
    before: bool,
}

impl Talkers {
    /// The number of talkers in the last tick.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Takes the levels of all talkers of a tick in -dBov; returns their places, with at most `most` in the mix beside
    /// those that leave.
    pub(super) fn place(
        &mut self,
        levels: &BTreeMap<ParticipantId, u8>,
        most: Option<usize>,
    ) -> BTreeMap<ParticipantId, Place> {
        self.0.retain(|participant, _| levels.contains_key(participant));
        for (&participant, &level) in levels {
            let loudness = f32::from(SILENCE.saturating_sub(level));
            let new = Talker { loudness, mixed: false, before: false };
            let talker = self.0.entry(participant).or_insert(new);
            talker.loudness = loudness.max(talker.loudness - FALL);
        }
        let mut order: Vec<(f32, ParticipantId)> = self.0.iter().map(|(&id, talker)| (talker.rank(), id)).collect();
        // The sort is stable: of equals the first by id.
        order.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let (most, mut entering) = (most.unwrap_or(usize::MAX), 0);
        let ranked = order.into_iter().enumerate().map(|(at, (_, id))| {
            let talker = self.0.get_mut(&id).expect("it is listed");
            let enters = at < most && !talker.mixed && entering < ENTER_MAX;
            entering += usize::from(enters);
            (id, talker.take(enters || at < most && talker.mixed))
        });
        ranked.collect()
    }
}

impl Talker {
    fn rank(&self) -> f32 {
        self.loudness + if self.mixed { CLEARLY_LOUDER } else { 0.0 }
    }

    fn take(&mut self, mixed: bool) -> Place {
        let talked = std::mem::replace(&mut self.before, true);
        match (std::mem::replace(&mut self.mixed, mixed), mixed) {
            (false, true) if talked => Place::Entering,
            (_, true) => Place::Mixed,
            (true, false) => Place::Leaving,
            (false, false) => Place::Outside,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn levels(levels: &[(u32, u8)]) -> BTreeMap<ParticipantId, u8> {
        levels.iter().map(|&(id, level)| (ParticipantId(id), level)).collect()
    }

    fn in_mix(places: &BTreeMap<ParticipantId, Place>) -> Vec<u32> {
        let mixed = places.iter().filter(|(_, place)| matches!(place, Place::Mixed | Place::Entering));
        mixed.map(|(id, _)| id.0).collect()
    }

    #[test]
    fn the_loudest_are_mixed() {
        let mut talkers = Talkers::default();
        let places = talkers.place(&levels(&[(1, 40), (2, 20), (3, 30), (4, 50)]), Some(2));
        assert_eq!(in_mix(&places), [2, 3]);
        assert_eq!(places[&ParticipantId(1)], Place::Outside);
        assert_eq!(in_mix(&talkers.place(&levels(&[(1, 40), (2, 20), (3, 30), (4, 50)]), None)), [1, 2, 3, 4]);
    }

    #[test]
    fn a_clearly_louder_talker_takes_the_place_of_the_softest_with_fades() {
        let mut talkers = Talkers::default();
        talkers.place(&levels(&[(1, 30), (2, 30), (3, 36)]), Some(2));
        let places = talkers.place(&levels(&[(1, 30), (2, 31), (3, 25)]), Some(2));
        assert_eq!(in_mix(&places), [1, 2], "5 dB are not clear");
        let places = talkers.place(&levels(&[(1, 30), (2, 31), (3, 20)]), Some(2));
        assert_eq!((places[&ParticipantId(2)], places[&ParticipantId(3)]), (Place::Leaving, Place::Entering));
        let places = talkers.place(&levels(&[(1, 30), (2, 31), (3, 20)]), Some(2));
        assert_eq!((places[&ParticipantId(2)], places[&ParticipantId(3)]), (Place::Outside, Place::Mixed));
    }

    #[test]
    fn a_pause_between_syllables_costs_no_place() {
        let mut talkers = Talkers::default();
        talkers.place(&levels(&[(1, 30), (2, 33)]), Some(1));
        for tick in 0..10 {
            let places = talkers.place(&levels(&[(1, 60), (2, 33)]), Some(1));
            assert_eq!(in_mix(&places), [1], "tick {tick}");
        }
        for _ in 0..30 {
            talkers.place(&levels(&[(1, 60), (2, 33)]), Some(1));
        }
        assert_eq!(in_mix(&talkers.place(&levels(&[(1, 60), (2, 33)]), Some(1))), [2], "it does not talk any more");
    }

    #[test]
    fn of_a_crowd_that_begins_at_once_eight_enter_in_each_tick() {
        let mut talkers = Talkers::default();
        let crowd = (0..20).map(|id| (ParticipantId(id), 30)).collect();
        let mixed: Vec<usize> = (0..4).map(|_| in_mix(&talkers.place(&crowd, None)).len()).collect();
        assert_eq!(mixed, [8, 16, 20, 20]);
    }

    proptest! {
        /// For any levels and limits: places follow each other as fades need it, the limit holds, and no place is empty
        /// while a talker is outside, unless several enter.
        #[test]
        fn the_limit_holds_and_every_change_is_faded(
            ticks in prop::collection::vec(
                (prop::collection::btree_map(0..30_u32, 0..127_u8, 0..30), prop::option::of(0..20_usize)), 1..100),
        ) {
            let mut talkers = Talkers::default();
            let mut before: BTreeMap<ParticipantId, Place> = BTreeMap::new();
            for (levels, most) in ticks {
                let levels: BTreeMap<_, _> = levels.into_iter().map(|(id, level)| (ParticipantId(id), level)).collect();
                let places = talkers.place(&levels, most);
                prop_assert!(places.keys().eq(levels.keys()));
                let mixed = in_mix(&places).len();
                let new = places.iter().filter(|(id, place)| {
                    let sounded = matches!(before.get(id), Some(Place::Mixed | Place::Entering));
                    matches!(place, Place::Mixed | Place::Entering) && !sounded
                });
                let new = new.count();
                let wanted = levels.len().min(most.unwrap_or(usize::MAX));
                prop_assert!(mixed == wanted || mixed < wanted && new == ENTER_MAX, "{} of {}", mixed, wanted);
                for (id, place) in &places {
                    let sounded = matches!(before.get(id), Some(Place::Mixed | Place::Entering));
                    let fits = match (before.get(id), place) {
                        (None, Place::Mixed | Place::Outside) => true,
                        (None, _) => false,
                        (Some(_), Place::Mixed | Place::Leaving) => sounded,
                        (Some(_), Place::Entering | Place::Outside) => !sounded,
                    };
                    prop_assert!(fits, "{:?} after {:?}", place, before.get(id));
                }
                before = places;
            }
        }
    }
}
