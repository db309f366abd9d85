//! RTP header extensions (RFC 8285) that a session negotiates.
//!
//! Owns: their URIs and the ids that an offer gives them. Does not know: packets.

use crate::sdp::Extension;

pub(super) const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub(super) const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
pub(super) const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
/// Level of the sender's audio (RFC 6464).
pub(super) const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// Levels of the contributing sources of a mix (RFC 6465).
pub(super) const MIXER_TO_CLIENT_LEVEL: &str = "urn:ietf:params:rtp-hdrext:csrc-audio-level";
/// Coordination of video orientation (3GPP TS 26.114 section 7.4.5).
pub(super) const ORIENTATION: &str = "urn:3gpp:video-orientation";
/// See libwebrtc's docs/native-code/rtp-hdrext/color-space.
pub(super) const COLOR_SPACE: &str = "http://www.webrtc.org/experiments/rtp-hdrext/color-space";
pub(super) const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
pub(super) const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";

/// Extensions of a section in which the client sends audio.
pub(super) const OF_AUDIO: [&str; 4] = [MID, AUDIO_LEVEL, TRANSPORT_CC, ABS_SEND_TIME];
/// Extensions of a section in which the client sends video.
pub(super) const OF_VIDEO: [&str; 7] = [MID, RID, REPAIRED_RID, ORIENTATION, COLOR_SPACE, TRANSPORT_CC, ABS_SEND_TIME];

/// The largest id that fits a header of one byte (RFC 8285 section 4.2).
const ONE_BYTE_ID_MAX: u16 = 14;

/// The ids of the extensions that are read or written. BUNDLE makes an id mean the same in all sections (RFC 8843).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ExtensionIds {
    pub(super) mid: Option<u8>,
    pub(super) rid: Option<u8>,
    pub(super) repaired_rid: Option<u8>,
    pub(super) audio_level: Option<u8>,
    pub(super) mixer_to_client_level: Option<u8>,
    pub(super) orientation: Option<u8>,
    pub(super) color_space: Option<u8>,
    pub(super) transport_cc: Option<u8>,
}

impl ExtensionIds {
    /// Adds those of one section.
    pub(super) fn add(&mut self, offered: &[Extension]) {
        for extension in offered {
            let slot = match &*extension.uri {
                MID => &mut self.mid,
                RID => &mut self.rid,
                REPAIRED_RID => &mut self.repaired_rid,
                AUDIO_LEVEL => &mut self.audio_level,
                MIXER_TO_CLIENT_LEVEL => &mut self.mixer_to_client_level,
                ORIENTATION => &mut self.orientation,
                COLOR_SPACE => &mut self.color_space,
                TRANSPORT_CC => &mut self.transport_cc,
                _ => continue,
            };
            if (1..=ONE_BYTE_ID_MAX).contains(&extension.id) || !is_written(&extension.uri) {
                *slot = u8::try_from(extension.id).ok().filter(|id| *id > 0).or(*slot);
            }
        }
    }
}

/// Whether we write the extension too: we write headers of one byte only, which every client reads.
fn is_written(uri: &str) -> bool {
    [MIXER_TO_CLIENT_LEVEL, TRANSPORT_CC].contains(&uri)
}
