//! What a joiner wants: what it sends, what it receives, and in which codec.

use super::OfferError;
use super::offer::{Direction, Offer, OfferedCodec, Section, SectionKind};
use crate::media::{Codec, Kind, SoundLimits, SoundTaken, Sounds, SourceKind};

/// Every codec we decode.
const DECODABLE: [Codec; 7] = [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1, Codec::Opus, Codec::Pcmu, Codec::Pcma];

/// What an offer amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// SendRecv joins a participant, SendOnly a publisher, RecvOnly a viewer; never Inactive.
    pub direction: Direction,
    /// What is sent, by the mid of its section, in the offer's order.
    pub sends: Vec<(String, SourceKind)>,
    /// The qualities in which a mix may be sent, as Opus; None for no mix.
    pub receives_audio: Option<SoundTaken>,
    /// The codec in which a view is wanted: the first one of the offer that we encode. None for no video.
    pub receives_video: Option<Codec>,
}

impl Offer {
    /// What the offerer wants, if we can give and take it. `encodable` are the video codecs the server encodes, `sounds`
    /// how it sends mixes.
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

/// What the section says of the sound to send. The other parameters of Opus are only wishes, or hold for all we send: it
/// is mono, and every decoder takes FEC and pauses (RFC 7587 section 6.1).
fn sound_limits(mix: &Section) -> SoundLimits {
    let opus = mix.codecs.iter().find(|offered| offered.codec == Some(Codec::Opus));
    let parameter = |name| opus?.parameter(name)?.parse::<u32>().ok();
    let most = SoundLimits::default();
    SoundLimits {
        packet_ms: mix.maxptime.or_else(|| parameter("maxptime")).unwrap_or(most.packet_ms),
        // Others are to be ignored.
        bits_per_second: parameter("maxaveragebitrate")
            .filter(|bits| (6_000..=510_000).contains(bits))
            .unwrap_or(most.bits_per_second),
    }
}

/// Which of the videos sent is the screen: the one that says so, or the second.
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

/// The first codec of the section that is one of these and is good enough.
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
            // What repairs other packets is no choice of the joiner's; and a stranger's list is not repeated whole.
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

/// Whether what we encode is within the offered profile: 8-bit 4:2:0, and H.264 up to main.
fn is_encodable_as_offered(offered: &OfferedCodec) -> bool {
    match offered.codec {
        Some(Codec::H264) => {
            // Without a profile it is baseline, without a mode single NAL units (RFC 6184 §8.1), into which one encode for
            // everybody does not fit.
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
