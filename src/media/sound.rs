//! The qualities in which a mix is sent, and who takes which.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AUDIO_RATE, AUDIO_TICK_SAMPLES, Tier};

/// Milliseconds of one audio tick.
const TICK_MS: u32 = AUDIO_TICK_SAMPLES as u32 * 1_000 / AUDIO_RATE;

/// How good a mix sounds, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SoundQuality {
    /// As good as it gets, one packet a tick.
    Full,
    /// For links on which every bit counts: fewer bits, and so much in a packet that headers cost little.
    Thin,
}

impl SoundQuality {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Full, Self::Thin];
}

/// How sound is sent in one quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoundSpec {
    /// Target in kbit/s, without headers.
    pub bitrate_kbps: u32,
    /// Sound in one packet, in milliseconds.
    pub packet_ms: u32,
}

impl SoundSpec {
    /// Audio ticks in one packet.
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

/// Both qualities of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sounds {
    /// One packet a tick.
    pub full: SoundSpec,
    /// For thin links: on these the headers of a packet cost as much as what is in it.
    pub thin: SoundSpec,
}

impl Default for Sounds {
    fn default() -> Self {
        Self::new(48, 20, 60)
    }
}

impl Sounds {
    /// Bitrates of both qualities in kbit/s, and how much sound is in a packet of the thin one, in milliseconds.
    pub const fn new(full_kbps: u32, thin_kbps: u32, thin_ms: u32) -> Self {
        Self {
            full: SoundSpec { bitrate_kbps: full_kbps, packet_ms: TICK_MS },
            thin: SoundSpec { bitrate_kbps: thin_kbps, packet_ms: thin_ms },
        }
    }

    /// What a quality is.
    pub const fn spec(&self, quality: SoundQuality) -> SoundSpec {
        match quality {
            SoundQuality::Full => self.full,
            SoundQuality::Thin => self.thin,
        }
    }

    /// Which qualities may be sent to somebody with these limits; None where neither.
    pub fn within(&self, limits: &SoundLimits) -> Option<SoundTaken> {
        match (self.full.is_within(limits), self.thin.is_within(limits)) {
            (true, true) => Some(SoundTaken::Any),
            (true, false) => Some(SoundTaken::Only(SoundQuality::Full)),
            (false, true) => Some(SoundTaken::Only(SoundQuality::Thin)),
            (false, false) => None,
        }
    }
}

/// What somebody says of the sound that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundLimits {
    /// Most sound in one packet, in milliseconds (`a=maxptime`, RFC 8866 section 6.4).
    pub packet_ms: u32,
    /// Most bits per second, without headers (`maxaveragebitrate`, RFC 7587 section 6.1).
    pub bits_per_second: u32,
}

impl Default for SoundLimits {
    fn default() -> Self {
        Self { packet_ms: 120, bits_per_second: 510_000 }
    }
}

/// Which qualities of sound somebody takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundTaken {
    /// Both: the tier decides.
    Any,
    /// One, whatever the tier.
    Only(SoundQuality),
}

impl SoundTaken {
    /// The sound that goes with a tier: whoever gets less than `medium` has a link on which every bit counts.
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
    fn sound_is_thin_below_medium_unless_the_receiver_takes_no_such() {
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
