//! Audio qualities of mixes, and which of them a receiver accepts.
//!
//! Owns: [`Sounds`], the two qualities; [`SoundTaken`], the acceptable ones of a receiver; [`AudioEffort`]. Does not
//! know: encoders, SDP.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Tier};

/// Duration of an audio tick in milliseconds.
const TICK_MS: u32 = AUDIO_TICK_SAMPLES as u32 * 1_000 / AUDIO_RATE;

/// Audio quality of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SoundQuality {
    /// Best quality, one packet per tick.
    Full,
    /// For slow links: lower bitrate, and longer packets to reduce header overhead.
    Thin,
}

impl SoundQuality {
    /// All qualities.
    pub const ALL: [Self; 2] = [Self::Full, Self::Thin];
}

/// The work of the audio mixer in a tick. It is reduced while the cores are busy; then the quality is lower, but no
/// packet is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioEffort {
    /// Opus complexity, 0 to 10.
    pub opus_complexity: u8,
    /// Most talkers in the mix, the loudest; None for all. The others share the common encode.
    pub talkers_max: Option<u16>,
}

impl AudioEffort {
    /// The effort while there is time for it. Complexity 6 costs as much as 4 and 5, because libopus' AVX2 code is
    /// used from 6 on, and sounds better.
    pub const FULL: Self = Self { opus_complexity: 6, talkers_max: None };
}

impl Default for AudioEffort {
    fn default() -> Self {
        Self::FULL
    }
}

/// Encoding parameters of one quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoundSpec {
    /// Target bitrate in kbit/s, without headers.
    pub bitrate_kbps: u32,
    /// Packet duration in milliseconds.
    pub packet_ms: u32,
}

impl SoundSpec {
    /// Packet duration in audio ticks.
    pub const fn ticks(&self) -> u32 {
        self.packet_ms / TICK_MS
    }

    fn is_within(&self, limits: &SoundLimits) -> bool {
        self.packet_ms <= limits.packet_ms && self.bitrate_kbps * 1_000 <= limits.bits_per_second
    }
}

impl fmt::Display for SoundSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s in packets of {} ms", self.bitrate_kbps, self.packet_ms)
    }
}

/// Encoding parameters of all qualities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sounds {
    /// Full quality.
    pub full: SoundSpec,
    /// Thin quality, for slow links, on which headers take as much bandwidth as payloads.
    pub thin: SoundSpec,
}

impl Default for Sounds {
    fn default() -> Self {
        Self::new(48, 20, 60)
    }
}

impl Sounds {
    /// From the bitrates of both qualities in kbit/s, and the packet duration of the thin one in milliseconds.
    pub const fn new(full_kbps: u32, thin_kbps: u32, thin_ms: u32) -> Self {
        Self {
            full: SoundSpec { bitrate_kbps: full_kbps, packet_ms: TICK_MS },
            thin: SoundSpec { bitrate_kbps: thin_kbps, packet_ms: thin_ms },
        }
    }

    /// The encoding parameters of a quality.
    pub const fn spec(&self, quality: SoundQuality) -> SoundSpec {
        match quality {
            SoundQuality::Full => self.full,
            SoundQuality::Thin => self.thin,
        }
    }

    /// The qualities acceptable for a receiver with these limits; None if neither is.
    pub fn within(&self, limits: &SoundLimits) -> Option<SoundTaken> {
        match (self.full.is_within(limits), self.thin.is_within(limits)) {
            (true, true) => Some(SoundTaken::Any),
            (true, false) => Some(SoundTaken::Only(SoundQuality::Full)),
            (false, true) => Some(SoundTaken::Only(SoundQuality::Thin)),
            (false, false) => None,
        }
    }
}

/// Limits of a receiver for audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundLimits {
    /// Maximum packet duration in milliseconds (`a=maxptime`, RFC 8866 section 6.4).
    pub packet_ms: u32,
    /// Maximum bits per second, without headers (`maxaveragebitrate`, RFC 7587 section 6.1).
    pub bits_per_second: u32,
}

impl Default for SoundLimits {
    fn default() -> Self {
        Self { packet_ms: 120, bits_per_second: 510_000 }
    }
}

/// The audio qualities that a receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundTaken {
    /// Both: the tier selects one.
    Any,
    /// One for every tier.
    Only(SoundQuality),
}

impl SoundTaken {
    /// The audio quality for a tier: thin below `medium`, full otherwise.
    pub fn with(self, tier: Tier) -> SoundQuality {
        match self {
            Self::Only(quality) => quality,
            Self::Any if tier < Tier::Medium => SoundQuality::Thin,
            Self::Any => SoundQuality::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_is_thin_below_medium_unless_the_receiver_does_not_accept_it() {
        let sounds = Sounds::default();
        let taken = |packet_ms, bits_per_second| sounds.within(&SoundLimits { packet_ms, bits_per_second });
        let any = sounds.within(&SoundLimits::default()).expect("both");
        let thin = Tier::ALL.map(|tier| any.with(tier) == SoundQuality::Thin);
        assert_eq!(thin, [true, true, true, false, false]);
        assert_eq!(taken(40, 64_000), Some(SoundTaken::Only(SoundQuality::Full)));
        assert_eq!(taken(60, 20_000), Some(SoundTaken::Only(SoundQuality::Thin)));
        assert_eq!(taken(40, 20_000), None);
        assert_eq!(taken(10, 64_000), None);
        assert_eq!(SoundTaken::Only(SoundQuality::Full).with(Tier::Audio), SoundQuality::Full);
    }
}
