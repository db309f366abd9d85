//! The captions of an HLS broadcast: segments of WebVTT that begin and end with those of the first video stream.
//!
//! Owns: [`Captions`]: the cues that belong to the current segment. Pure. Does not know: playlists. In: captions, and
//! the parts and boundaries of the video. Out: [`HlsPiece`]s, one part for each segment, also without cues.
//!
//! A segment has all cues that are shown in its time, so a cue may be in several segments. Its identifier and times are
//! the same in all of them, because players tell repeated cues by these: the end of a cue is fixed with its first
//! segment. Until then a later caption of its speaker ends it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::container::webvtt::{Cue, HLS_HEADER};
use crate::id::ParticipantId;
use crate::link::output::{Caption, HlsPiece};
use crate::room::captions::SHOWN;

/// Most cues that are stored. A room has fewer captions in [`SHOWN`] and a segment.
const MAX_CUES: usize = 300;
/// Shortest duration of a cue; one that would be shorter is dropped.
const MIN_DURATION: Duration = Duration::from_millis(1);

/// Segments the captions of one broadcast. Times are since the epoch of the room.
#[derive(Debug, Default)]
pub(super) struct Captions {
    /// In order of their starts.
    cues: VecDeque<StoredCue>,
    /// Start of the current segment; None before the first.
    start: Option<Duration>,
    /// Duration of the video in the current segment.
    length: Duration,
    language: Option<String>,
    dropped: u64,
}

#[derive(Debug)]
struct StoredCue {
    caption: Caption,
    from: Duration,
    until: Duration,
    /// A segment has it.
    is_written: bool,
}

impl Captions {
    /// Adds a caption. Returns the language of the rendition when it changes: that of the captions, or `mul` for
    /// several.
    pub(super) fn add(&mut self, at: Duration, caption: Caption) -> Option<HlsPiece> {
        let participant = caption.participant;
        self.end_cue_of(participant, at);
        let language = caption.language.clone();
        self.cues.push_back(StoredCue { caption, from: at, until: at + SHOWN, is_written: false });
        if self.cues.len() > MAX_CUES {
            self.cues.pop_front();
            self.dropped += 1;
        }
        let changed = match (&self.language, language) {
            (None, Some(first)) => first,
            (Some(before), Some(other)) if *before != other && before != "mul" => "mul".to_owned(),
            _ => return None,
        };
        self.language = Some(changed.clone());
        Some(HlsPiece::Language(changed))
    }

    fn end_cue_of(&mut self, participant: ParticipantId, at: Duration) {
        let mut cues = self.cues.iter_mut().rev().filter(|cue| cue.caption.participant == participant);
        if let Some(before) = cues.next().filter(|cue| !cue.is_written) {
            before.until = before.until.min(at);
        }
        self.cues.retain(|cue| cue.until >= cue.from + MIN_DURATION);
    }

    /// The number of captions that were dropped since the last call.
    pub(super) const fn take_dropped(&mut self) -> u64 {
        std::mem::replace(&mut self.dropped, 0)
    }

    /// The video has a part of this duration.
    pub(super) fn extend(&mut self, part: Duration) {
        self.length += part;
    }

    /// The video begins a segment at `at`: ends the current one.
    pub(super) fn cut_at(&mut self, at: Duration) -> Vec<HlsPiece> {
        let mut pieces: Vec<HlsPiece> = self.end().into_iter().collect();
        (self.start, self.length) = (Some(at), Duration::ZERO);
        self.cues.retain(|cue| cue.until > at);
        pieces.push(HlsPiece::Cut { at });
        pieces
    }

    /// Ends the current segment.
    pub(super) fn end(&mut self) -> Option<HlsPiece> {
        let start = self.start?;
        let (duration, end) = (self.length, start + self.length);
        if duration.is_zero() {
            return None;
        }
        let mut text = HLS_HEADER.to_owned();
        for cue in self.cues.iter_mut().filter(|cue| cue.from < end && cue.until > start) {
            cue.is_written = true;
            let StoredCue { caption: Caption { participant, name, text: said, .. }, from, until, .. } = cue;
            let id = format!("{}-{participant}", from.as_millis());
            Cue { id: &id, from: *from, until: *until, name, text: said }.write(&mut text);
        }
        Some(HlsPiece::Part { duration, independent: true, data: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: Duration = Duration::from_secs(2);

    fn caption(participant: u32, text: &str, language: Option<&str>) -> Caption {
        Caption {
            participant: ParticipantId(participant),
            name: format!("P{participant}"),
            text: text.to_owned(),
            language: language.map(str::to_owned),
        }
    }

    /// Ends a segment of two seconds, and begins the next.
    fn next_segment(captions: &mut Captions, at: Duration) -> String {
        captions.extend(SEGMENT);
        match &captions.cut_at(at)[..] {
            [HlsPiece::Part { duration, data, independent: true }, HlsPiece::Cut { at: cut }] => {
                assert_eq!((*duration, *cut), (SEGMENT, at));
                std::str::from_utf8(data).expect("text").to_owned()
            }
            other => panic!("a part and a boundary, not {other:?}"),
        }
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_segment_has_each_cue_that_is_shown_in_its_time() {
        let mut captions = Captions::default();
        assert_eq!(captions.end(), None);
        assert_eq!(captions.cut_at(millis(10_000)), [HlsPiece::Cut { at: millis(10_000) }]);
        assert_eq!(next_segment(&mut captions, millis(12_000)), HLS_HEADER, "no cue");
        captions.add(millis(12_500), caption(1, "one", None));
        captions.add(millis(13_500), caption(1, "two", None));
        captions.add(millis(14_100), caption(2, "early", None));
        let first = next_segment(&mut captions, millis(14_000));
        assert!(first.contains("12500-p1\n00:00:12.500 --> 00:00:13.500\n<v P1>P1: one</v>\n"), "{first}");
        let two = "13500-p1\n00:00:13.500 --> 00:00:19.500\n<v P1>P1: two</v>\n";
        assert!(first.contains(two) && !first.contains("early"), "{first}");
        captions.add(millis(15_000), caption(1, "three", None));
        let second = next_segment(&mut captions, millis(16_000));
        assert!(second.contains(two), "its end is fixed: {second}");
        assert!(second.contains("early") && second.contains("three") && !second.contains("one"), "{second}");
        captions.extend(millis(500));
        let last = captions.end();
        assert!(matches!(last, Some(HlsPiece::Part { duration, .. }) if duration == millis(500)), "{last:?}");
    }

    #[test]
    fn the_language_is_that_of_the_captions_or_several() {
        let mut captions = Captions::default();
        let mut add = |language| captions.add(millis(0), caption(1, "x", language));
        assert_eq!(add(None), None);
        assert_eq!(add(Some("de")), Some(HlsPiece::Language("de".to_owned())));
        assert_eq!(add(Some("de")), None);
        assert_eq!(add(Some("en")), Some(HlsPiece::Language("mul".to_owned())));
        assert_eq!((add(Some("de")), add(None)), (None, None));
    }

    proptest! {
        #[test]
        fn repeated_cues_are_equal_and_all_captions_are_written(
            steps in prop::collection::vec((0..3_000_u64, 1..4_u32), 1..40),
        ) {
            let mut captions = Captions::default();
            captions.cut_at(millis(0));
            let (mut now, mut cut, mut segments) = (0, 0, Vec::new());
            for (n, (wait, participant)) in steps.iter().enumerate() {
                now += wait + 1;
                while cut + 2_000 <= now {
                    cut += 2_000;
                    segments.push((cut - 2_000, next_segment(&mut captions, millis(cut))));
                }
                captions.add(millis(now), caption(*participant, &format!("say {n} end"), None));
            }
            for _ in 0..5 {
                cut += 2_000;
                segments.push((cut - 2_000, next_segment(&mut captions, millis(cut))));
            }
            prop_assert!(captions.cues.is_empty());
            for n in 0..steps.len() {
                let said = format!("say {n} end");
                let blocks: Vec<&str> =
                    segments.iter().flat_map(|(_, text)| text.split("\n\n")).filter(|cue| cue.contains(&said)).collect();
                prop_assert!(!blocks.is_empty(), "caption {n} is lost");
                prop_assert!(blocks.iter().all(|block| *block == blocks[0]), "{:?}", blocks);
            }
        }
    }
}
