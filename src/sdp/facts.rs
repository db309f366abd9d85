//! Evaluates an offer: what the joiner sends and receives, and in which codecs.
//!
//! Owns: the limits of sections, the choice of codecs, and screen detection. Does not know: transport. In: a parsed
//! [`Offer`]. Out: [`Facts`], or an error that names the fix.

use super::OfferError;
use super::offer::{Direction, Offer, OfferedCodec, Section, SectionKind};
use crate::media::{Codec, Kind, SoundLimits, SoundTaken, Sounds, SourceKind};

/// Codecs that the server decodes.
const DECODABLE: [Codec; 7] = [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1, Codec::Opus, Codec::Pcmu, Codec::Pcma];

/// Media of a joiner, as its offer describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// SendRecv: a participant; SendOnly: a publisher; RecvOnly: a viewer. Never Inactive.
    pub direction: Direction,
    /// Sources sent by the joiner, with the mid of their section, in the offer's order.
    pub sends: Vec<(String, SourceKind)>,
    /// Acceptable audio qualities of a mix in Opus; None if no audio is received.
    pub receives_audio: Option<SoundTaken>,
    /// Codec of the view: the first of the offer that the server encodes. None if no video is received.
    pub receives_video: Option<Codec>,
}

impl Offer {
    /// Evaluates the offer. `encodable` are the video codecs the server encodes, `sounds` the audio qualities of mixes.
    ///
    /// # Errors
    /// The offer cannot join; the error names the fix.
    pub fn facts(&self, encodable: &[Codec], sounds: &Sounds) -> Result<Facts, OfferError> {
        let active = |kind| self.sections.iter().filter(move |s| s.kind == kind && s.is_active());
        let sending = |kind| active(kind).filter(|s| s.direction.sends()).collect::<Vec<_>>();
        let receiving = |kind| active(kind).filter(|s| s.direction.receives()).collect::<Vec<_>>();
        let (microphones, videos) = (sending(SectionKind::Audio), sending(SectionKind::Video));
        let (mixes, views) = (receiving(SectionKind::Audio), receiving(SectionKind::Video));
        let direction = match (microphones.len() + videos.len(), mixes.len() + views.len()) {
            (0, 0) => return Err(OfferError::Nothing),
            (_, 0) => Direction::SendOnly,
            (0, _) => Direction::RecvOnly,
            _ => Direction::SendRecv,
        };
        if microphones.len() > 1 {
            return Err(OfferError::AudioSent { count: microphones.len() });
        }
        if videos.len() > 2 {
            return Err(OfferError::VideoSent { count: videos.len() });
        }
        for (kind, sections) in [("audio", &mixes), ("video", &views)] {
            if sections.len() > 1 {
                return Err(OfferError::Received { kind, count: sections.len() });
            }
        }
        for section in microphones.iter().chain(&videos) {
            choose(section, "decoded", &DECODABLE, |_| true)?;
        }
        let mix = mixes.first().map(|mix| {
            choose(mix, "sent", &[Codec::Opus], |_| true)?;
            let limits = sound_limits(mix);
            sounds.within(&limits).ok_or_else(|| OfferError::Sound { mid: mix.mid.clone(), limits, sounds: *sounds })
        });
        let view = views.first().map(|view| choose(view, "sent", encodable, is_encodable_as_offered));
        let screen = screen(&videos)?;
        let kind_of = |section: &Section| match section.kind {
            SectionKind::Audio => SourceKind::Microphone,
            _ if screen == Some(section.mid.as_str()) => SourceKind::Screen,
            _ => SourceKind::Camera,
        };
        let sent = self.sections.iter().filter(|s| microphones.contains(s) || videos.contains(s));
        Ok(Facts {
            direction,
            sends: sent.map(|section| (section.mid.clone(), kind_of(section))).collect(),
            receives_audio: mix.transpose()?,
            receives_video: view.transpose()?,
        })
    }
}

/// Limits of the section for received audio. The other Opus parameters are only preferences, or hold for all we send:
/// it is mono, and every decoder supports FEC and DTX (RFC 7587 section 6.1).
fn sound_limits(mix: &Section) -> SoundLimits {
    let opus = mix.codecs.iter().find(|offered| offered.codec == Some(Codec::Opus));
    let parameter = |name| opus?.parameter(name)?.parse::<u32>().ok();
    let most = SoundLimits::default();
    SoundLimits {
        packet_ms: mix.maxptime.or_else(|| parameter("maxptime")).unwrap_or(most.packet_ms),
        // Values outside of the range of RFC 7587 are ignored.
        bits_per_second: parameter("maxaveragebitrate")
            .filter(|bits| (6_000..=510_000).contains(bits))
            .unwrap_or(most.bits_per_second),
    }
}

/// The mid of the screen: the video section that is marked as screen, or the second one.
fn screen<'a>(videos: &[&'a Section]) -> Result<Option<&'a str>, OfferError> {
    let marked: Vec<&Section> = videos.iter().copied().filter(|section| is_marked_as_screen(section)).collect();
    match marked[..] {
        [] => Ok(videos.get(1).map(|section| section.mid.as_str())),
        [section] => Ok(Some(&section.mid)),
        _ => Err(OfferError::TwoScreens),
    }
}

fn is_marked_as_screen(section: &Section) -> bool {
    let slides = section.content.as_deref().is_some_and(|content| content.split(',').any(|c| c.trim() == "slides"));
    let msid = section.msid.iter().flat_map(|msid| [&msid.stream, &msid.track]);
    slides || msid.chain(&section.labels).any(|name| name.eq_ignore_ascii_case("screen"))
}

/// The first codec of the section that is in `taken` and acceptable.
fn choose(
    section: &Section,
    verb: &'static str,
    taken: &[Codec],
    good: impl Fn(&OfferedCodec) -> bool,
) -> Result<Codec, OfferError> {
    let kind = if section.kind == SectionKind::Audio { Kind::Audio } else { Kind::Video };
    let ours = |codec: &Codec| codec.kind() == kind && taken.contains(codec);
    let found = section.codecs.iter().filter(|offered| good(offered)).filter_map(|offered| offered.codec).find(ours);
    found.ok_or_else(|| {
        let mut offered: Vec<String> = Vec::new();
        for codec in &section.codecs {
            let name =
                if codec.fmtp.is_empty() { codec.name.clone() } else { format!("{} ({})", codec.name, codec.fmtp) };
            // Retransmission and FEC formats are not codecs. The list is bounded because it is untrusted.
            let repairs = ["rtx", "red", "ulpfec", "flexfec-03"].contains(&codec.name.to_ascii_lowercase().as_str());
            if !repairs && offered.len() < 12 && !offered.contains(&name) {
                offered.push(name.chars().take(100).collect());
            }
        }
        OfferError::NoCodec {
            mid: section.mid.clone(),
            verb,
            offered: if offered.is_empty() { "none".to_owned() } else { offered.join(", ") },
            taken: names(taken.iter().copied().filter(ours), verb == "sent"),
        }
    })
}

fn names(codecs: impl Iterator<Item = Codec>, sent: bool) -> String {
    let names = codecs.map(|codec| match codec {
        Codec::H264 if sent => "H264 (baseline or main profile, packetization-mode=1)".to_owned(),
        Codec::H264 => "H264 (baseline or main profile)".to_owned(),
        other => other.to_string(),
    });
    names.collect::<Vec<_>>().join(" or ")
}

/// Whether our encoding conforms to the offered profile: 8-bit 4:2:0, and H.264 up to main profile.
fn is_encodable_as_offered(offered: &OfferedCodec) -> bool {
    match offered.codec {
        Some(Codec::H264) => {
            // Default profile: baseline. Default mode: single NAL unit (RFC 6184 §8.1), which our shared encode does
            // not fit.
            let mode = offered.parameter("packetization-mode") == Some("1");
            let profile = offered.parameter("profile-level-id").is_none_or(|id| {
                let profile = id.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                id.len() == 6 && matches!(profile, Some(0x42 | 0x4d))
            });
            mode && profile
        }
        Some(Codec::Vp9) => matches!(offered.parameter("profile-id"), None | Some("0")),
        Some(Codec::Av1) => matches!(offered.parameter("profile"), None | Some("0")),
        _ => true,
    }
}
