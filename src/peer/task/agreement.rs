//! What a peer and we have agreed upon: its offers and our answers, candidates, restarts, streams that no offer named.
//!
//! Owns: the way from an offer to the connection's descriptions, whole or not at all. Does not know: when it is asked for.

use std::sync::Arc;

use rtc::peer_connection::sdp::{RTCSdpType, RTCSessionDescription};
use webrtc::media_stream::track_local::TrackLocal;

use super::super::associate::Wanted;
use super::super::description::{self, CANDIDATES_MAX, Learned, Receives, Taken};
use super::super::incoming::Agreed;
use super::super::outgoing::Output;
use super::super::{Answer, PeerError, engine};
use super::{Task, receives};
use crate::media::SourceKind;
use crate::net::udp::INSIDE_CANDIDATE;
use crate::sdp::{Facts, Fragment, Offer, replace_candidates};
use crate::transport::ice::{Credentials, Role};

impl Task {
    /// Brings the connection to what was taken of an offer; gives the answer it made.
    pub(super) async fn agree(
        &mut self,
        offer: Offer,
        text: &str,
        taken: Taken,
        sources: &[(String, SourceKind)],
    ) -> Result<(String, Credentials), PeerError> {
        self.add_outputs(&taken).await?;
        // Answers to our checks may come before ours is known to be an agreement.
        self.connection.set_remote(&taken.ice);
        let described = self.describe(&taken.text).await;
        let (made, ice) = match described {
            Ok(described) => described,
            Err(error) => {
                self.connection.set_remote(&self.taken.ice);
                return Err(error);
            }
        };
        let role = if taken.is_lite() { Role::Controlling } else { Role::Controlled };
        self.connection.begin_ice(role, &ice, &taken.ice, taken.addresses());
        self.agreed.store(Arc::new(Agreed::new(&taken, sources)));
        self.wanted.store(Arc::new(Wanted::new(&taken)));
        self.learned.retain(|learned| sources.iter().any(|(mid, _)| *mid == learned.mid));
        self.incoming.retain(|incoming| sources.iter().any(|(mid, _)| *mid == incoming.mid));
        self.offer = offer;
        self.text = text.to_owned();
        self.taken = taken;
        self.sources = sources.to_vec();
        Ok((made, ice))
    }

    async fn describe(&self, offer: &str) -> Result<(String, Credentials), PeerError> {
        // Where the client really is, is for our own agent.
        let offer = replace_candidates(offer, &[INSIDE_CANDIDATE.to_owned()]);
        self.pc.set_remote_description(RTCSessionDescription::offer(offer)?).await?;
        let made = async {
            let answer = self.pc.create_answer(None).await?;
            let text = answer.sdp.clone();
            self.pc.set_local_description(answer).await?;
            Ok::<_, PeerError>(text)
        };
        match made.await {
            Ok(text) => {
                let ice = description::local_ice(&text);
                let ice = ice.ok_or_else(|| PeerError::Offer("none of its sections can be used".into()))?;
                Ok((text, ice))
            }
            Err(error) => {
                let mut back = RTCSessionDescription::default();
                back.sdp_type = RTCSdpType::Rollback;
                if let Err(error) = self.pc.set_remote_description(back).await {
                    tracing::debug!(%error, "an offer could not be taken back");
                }
                Err(error)
            }
        }
    }

    /// Adds tracks for what the peer newly receives.
    async fn add_outputs(&self, taken: &Taken) -> Result<(), PeerError> {
        let (has_audio, has_video) = {
            let outputs = self.outputs.lock();
            (outputs.audio.is_some(), outputs.video.is_some())
        };
        let audio = taken.audio_out.clone().filter(|_| !has_audio);
        let video = taken.video_out.clone().filter(|_| !has_video);
        if let Some(format) = audio {
            let output = Output::new(format, taken.extension(engine::HEARD_LEVELS), self.ssrcs, self.sends);
            self.pc.add_track(output.track() as Arc<dyn TrackLocal>).await?;
            self.outputs.lock().audio = Some(output);
        }
        if let Some(format) = video {
            let output = Output::new(format, taken.extension(engine::HEARD_LEVELS), self.ssrcs, self.sends);
            self.pc.add_track(output.track() as Arc<dyn TrackLocal>).await?;
            self.outputs.lock().video = Some(output);
        }
        Ok(())
    }

    pub(super) fn answer_text(&self, made: &str) -> String {
        description::answer(made, &self.taken, &self.mux.candidates(), &self.cname)
    }

    pub(super) async fn add_candidates(&mut self, fragment: &Fragment) -> Result<(), PeerError> {
        if fragment.ufrag != self.taken.ice.ufrag {
            return Err(PeerError::Fragment(
                "its ice-ufrag is not the offer's; to restart ICE send `If-Match: *`".into(),
            ));
        }
        for candidate in &fragment.candidates {
            // RFC 9725 section 4.3.2: a candidate that cannot be used is dropped in silence.
            let fields = candidate.candidate.trim_start_matches("candidate:");
            let Some(address) = description::address(fields) else { continue };
            self.candidates += 1;
            if self.candidates > CANDIDATES_MAX {
                return Err(PeerError::Fragment(format!("more than {CANDIDATES_MAX} candidates; send fewer")));
            }
            self.connection.add_candidate(address);
        }
        Ok(())
    }

    pub(super) async fn restart(&mut self, fragment: &Fragment) -> Result<(String, String), PeerError> {
        if fragment.ufrag == self.taken.ice.ufrag {
            return Err(PeerError::Fragment("its ice-ufrag is the one in use; a restart needs a new one".into()));
        }
        let text = description::with_credentials(&self.text, &fragment.ufrag, &fragment.pwd);
        let offer = Offer { ufrag: fragment.ufrag.clone(), pwd: fragment.pwd.clone(), ..self.offer.clone() };
        let taken = description::take(&offer, &text, self.receives(), &self.learned)?;
        let sources = self.sources.clone();
        let (made, ice) = self.agree(offer, &text, taken, &sources).await?;
        self.candidates = 0;
        // Without them the new session would only learn addresses from the peer's own checks.
        self.add_candidates(fragment).await?;
        Ok((description::fragment(&made, &ice, &self.mux.candidates()), ice.ufrag))
    }

    pub(super) async fn renegotiate(&mut self, offer: Offer, text: &str, facts: &Facts) -> Result<Answer, PeerError> {
        let running = self.receives();
        // What is sent already keeps its codec, whatever a new offer prefers.
        let wanted = receives(facts);
        let wanted = Receives { video: wanted.video.map(|video| running.video.unwrap_or(video)), ..wanted };
        let taken = description::take(&offer, text, wanted, &self.learned)?;
        if taken.ice.ufrag != self.taken.ice.ufrag {
            self.candidates = 0;
        }
        let (made, ice) = self.agree(offer, text, taken, &facts.sends).await?;
        Ok(Answer { sdp: self.answer_text(&made), etag: ice.ufrag })
    }

    /// A stream is known by its packets that the offer did not name: to the connection it looks as if it had.
    pub(super) async fn learn(&mut self, learned: Learned) {
        let mut open = self.taken.unannounced.iter();
        if !open.any(|stream| stream.mid == learned.mid && stream.rid == learned.rid) {
            return;
        }
        tracing::debug!(?learned, "a stream is known by its packets");
        self.learned.push(learned);
        let (offer, text, sources) = (self.offer.clone(), self.text.clone(), self.sources.clone());
        let described = match description::take(&offer, &text, self.receives(), &self.learned) {
            Ok(taken) => self.agree(offer, &text, taken, &sources).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = described {
            tracing::warn!(%error, "a stream that was not announced cannot be received");
        }
    }

    /// What the peer is sent now.
    fn receives(&self) -> Receives {
        let outputs = self.outputs.lock();
        Receives { audio: outputs.audio.is_some(), video: outputs.video.as_ref().map(|output| output.format.codec) }
    }
}
