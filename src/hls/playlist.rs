//! Playlists.
//!
//! Owns: which parts of a [`Broadcast`] are listed, and blocking reload. Does not know: HTTP.

use std::fmt::Write as _;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Broadcast, LISTED_SEGMENTS, Lookup, Rendition, SEGMENTS_WITH_PARTS, Segment, Track};

/// Delivery directives of a playlist request (RFC 8216bis section 6.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Query {
    /// `_HLS_msn`: block until this media sequence number is listed.
    pub segment: Option<u64>,
    /// `_HLS_part`: block only until this part of it is listed.
    pub part: Option<u64>,
}

impl Broadcast {
    /// The multivariant playlist. `suffix` is appended to each URI in it, for example `?token=…`.
    pub fn master(&self, suffix: &str) -> Lookup {
        let codec =
            |track: &'_ Track| if track.rendition.has_parts() { track.codec.clone() } else { Some(String::new()) };
        let codecs: Option<Vec<String>> = self.renditions.iter().map(codec).collect();
        let listed = self.renditions.iter().all(|track| track.segments.iter().any(|segment| segment.complete));
        let Some(codecs) = codecs.filter(|_| listed) else {
            return if self.ended { Lookup::NotFound } else { Lookup::Pending };
        };
        let sound = self.renditions.iter().zip(&codecs).find_map(|(track, codec)| match track.rendition {
            Rendition::Audio { bandwidth } => Some((track, codec.as_str(), bandwidth)),
            Rendition::Video { .. } | Rendition::Captions => None,
        });
        let captions = self.renditions.iter().find(|track| track.rendition == Rendition::Captions);
        let subtitles = if captions.is_some() { ",SUBTITLES=\"captions\"" } else { "" };
        let mut out = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n".to_owned();
        let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("a String takes every write");
        if let Some((track, ..)) = sound {
            let name = track.rendition.name();
            line(format_args!(
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"sound\",NAME=\"Everyone\",DEFAULT=YES,AUTOSELECT=YES,\
                 CHANNELS=\"1\",URI=\"{name}/index.m3u8{suffix}\""
            ));
        }
        if let Some(track) = captions {
            let name = track.rendition.name();
            let language = track.language.as_ref().map(|tag| format!(",LANGUAGE=\"{tag}\"")).unwrap_or_default();
            line(format_args!(
                "#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"captions\",NAME=\"Captions\"{language},DEFAULT=NO,\
                 AUTOSELECT=YES,CHARACTERISTICS=\"public.accessibility.transcribes-spoken-dialog\",\
                 URI=\"{name}/index.m3u8{suffix}\""
            ));
        }
        for (track, codec) in self.renditions.iter().zip(&codecs) {
            let Rendition::Video { size, fps, bandwidth, .. } = track.rendition else { continue };
            let (with, more) =
                sound.map_or((String::new(), 0), |(_, codec, bandwidth)| (format!(",{codec}"), bandwidth));
            let group = if sound.is_some() { ",AUDIO=\"sound\"" } else { "" };
            line(format_args!(
                "#EXT-X-STREAM-INF:BANDWIDTH={},CODECS=\"{codec}{with}\",RESOLUTION={size},FRAME-RATE={fps}.000\
                 {group}{subtitles}",
                bandwidth + more,
            ));
            line(format_args!("{}/index.m3u8{suffix}", track.rendition.name()));
        }
        if let Some((track, codec, bandwidth)) = sound {
            line(format_args!("#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},CODECS=\"{codec}\",AUDIO=\"sound\"{subtitles}"));
            line(format_args!("{}/index.m3u8{suffix}", track.rendition.name()));
        }
        Lookup::Playlist(out)
    }

    /// The media playlist of one rendition.
    pub fn playlist(&self, rendition: &str, query: Query, suffix: &str) -> Lookup {
        let Some(track) = self.renditions.iter().find(|track| track.rendition.name() == rendition) else {
            return Lookup::NotFound;
        };
        match track.wait(query, self.ended) {
            Wait::Ready => {}
            Wait::Pending => return Lookup::Pending,
            Wait::TooFar => return Lookup::TooFar,
        }
        let listed = track.listed();
        if listed.is_empty() {
            return if self.ended { Lookup::NotFound } else { Lookup::Pending };
        }
        Lookup::Playlist(self.text(track, &listed, suffix))
    }

    fn text(&self, track: &Track, listed: &[(u64, &Segment)], suffix: &str) -> String {
        let part_target = self.part_target.as_secs_f64();
        let longest = listed.iter().map(|(_, segment)| segment.duration()).max().unwrap_or_default();
        let target = longest.max(self.segment_target).as_secs_f64().round().max(1.0) as u64;
        let first = listed.first().map_or(0, |(number, _)| *number);
        let before = first - track.first.unwrap_or(first);
        let skipped = track.segments.iter().take(before as usize + 1).skip(1);
        let discontinuities = track.discontinuities + skipped.filter(|segment| segment.discontinuity).count() as u64;
        let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n");
        let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("a String takes every write");
        line(format_args!("#EXT-X-TARGETDURATION:{target}"));
        let (has_parts, extension) = (track.rendition.has_parts(), track.rendition.extension());
        if has_parts {
            line(format_args!("#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={:.3}", 3.0 * part_target));
            line(format_args!("#EXT-X-PART-INF:PART-TARGET={part_target:.3}"));
        } else {
            line(format_args!("#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES"));
        }
        line(format_args!("#EXT-X-MEDIA-SEQUENCE:{first}"));
        line(format_args!("#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}"));
        let mut generation = None;
        let listed_whole = |segment: &Segment| has_parts || segment.complete;
        for (place, (number, segment)) in listed.iter().enumerate().filter(|(_, (_, segment))| listed_whole(segment)) {
            if segment.discontinuity && place > 0 {
                line(format_args!("#EXT-X-DISCONTINUITY"));
            }
            if generation.replace(segment.generation) != Some(segment.generation) && has_parts {
                line(format_args!("#EXT-X-MAP:URI=\"init-{}.mp4{suffix}\"", segment.generation));
            }
            line(format_args!("#EXT-X-PROGRAM-DATE-TIME:{}", date(segment.wall_micros)));
            if has_parts && place + SEGMENTS_WITH_PARTS >= listed.len() {
                for (n, part) in segment.parts.iter().enumerate() {
                    let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
                    let duration = part.duration.as_secs_f64();
                    line(format_args!(
                        "#EXT-X-PART:DURATION={duration:.5},URI=\"{number}-{n}.m4s{suffix}\"{independent}"
                    ));
                }
            }
            if segment.complete {
                line(format_args!("#EXTINF:{:.5},", segment.duration().as_secs_f64()));
                line(format_args!("{number}.{extension}{suffix}"));
            } else {
                let next = segment.parts.len();
                line(format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{number}-{next}.m4s{suffix}\""));
            }
        }
        for other in self.renditions.iter().filter(|other| other.rendition != track.rendition && !self.ended) {
            let Some(last) = other.last_listed() else { continue };
            let name = other.rendition.name();
            line(format_args!("#EXT-X-RENDITION-REPORT:URI=\"../{name}/index.m3u8{suffix}\",{last}"));
        }
        if self.ended {
            line(format_args!("#EXT-X-ENDLIST"));
        }
        out
    }
}

/// Whether a blocking playlist request can be answered.
enum Wait {
    Ready,
    Pending,
    TooFar,
}

impl Track {
    /// The listed segments with their sequence numbers: the last complete ones, and the current one.
    fn listed(&self) -> Vec<(u64, &Segment)> {
        let all: Vec<(u64, &Segment)> = (self.first.unwrap_or(0)..).zip(&self.segments).collect();
        let whole = all.iter().filter(|(_, segment)| segment.complete).count();
        all.into_iter().skip(whole.saturating_sub(LISTED_SEGMENTS)).collect()
    }

    /// The attributes of a rendition report: the last segment and part in the playlist.
    fn last_listed(&self) -> Option<String> {
        let (last, number) = (self.segments.back()?, self.next()? - 1);
        if self.rendition.has_parts() {
            let part = last.parts.len().checked_sub(1)?;
            return Some(format!("LAST-MSN={number},LAST-PART={part}"));
        }
        let whole = if last.complete { number } else { number.checked_sub(1)? };
        self.segment(whole).map(|_| format!("LAST-MSN={whole}"))
    }

    fn wait(&self, query: Query, ended: bool) -> Wait {
        let Some(wanted) = query.segment.filter(|_| !ended) else { return Wait::Ready };
        // Players that watched before a restart ask for a number that this broadcast is about to reach.
        let (Some(first), Some(next)) = (self.first, self.next()) else { return Wait::Pending };
        if wanted > next + 1 {
            return Wait::TooFar;
        }
        let there = match (self.segment(wanted), query.part) {
            (Some(segment), _) if segment.complete => true,
            (Some(segment), Some(part)) => (part as usize) < segment.parts.len(),
            (None, _) => wanted < first,
            (Some(_), None) => false,
        };
        if there { Wait::Ready } else { Wait::Pending }
    }
}

fn date(wall_micros: u64) -> String {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(wall_micros / 1_000);
    at.format(&Rfc3339).expect("years up to 9999 can be formatted")
}
