//! What was agreed with one viewer, in SDP.
//!
//! Owns: its latest offer, what was taken of it, what we have told it of ourselves. Does not know: connections. Offers and
//! fragments go in; what changes for the connection comes out, with the text for the client.

use std::net::SocketAddr;
use std::sync::Arc;

use super::super::description::{self, CANDIDATES_MAX, DtlsRole, Own, Receives, Taken};
use super::super::outgoing::Ssrcs;
use super::super::task::receives;
use super::super::{Answer, PeerError};
use super::connection::Setup;
use crate::sdp::{Facts, Fragment, Offer};
use crate::transport;
use crate::transport::ice::{Credentials, Role};
use crate::transport::secure::Identity;

pub(super) struct Negotiation {
    identity: Arc<Identity>,
    /// Of the port, as SDP writes them.
    own_candidates: Vec<String>,
    fingerprints: Vec<String>,
    pub(super) taken: Taken,
    /// Who opens DTLS, as agreed first.
    role: DtlsRole,
    local: Credentials,
    ssrcs: Ssrcs,
    cname: String,
    session: u64,
    version: u64,
    /// What the viewer is sent: what it once got keeps its codec.
    receives: Receives,
    /// Candidates taken of this ICE session.
    candidates: usize,
}

impl Negotiation {
    pub(super) fn begin(
        identity: Arc<Identity>,
        own_candidates: Vec<String>,
        offer: &Offer,
        text: &str,
        facts: &Facts,
    ) -> Result<Self, PeerError> {
        let receives = receives(facts);
        let taken = description::take(offer, text, receives, &[])?;
        Ok(Self {
            identity,
            own_candidates,
            fingerprints: fingerprints(offer),
            role: taken.dtls_role,
            taken,
            local: Credentials::random(),
            ssrcs: Ssrcs::apart_from(text),
            cname: transport::cname(),
            // Numeric strings of SDP are read into 63 bits by some.
            session: rand::random::<u64>() >> 1,
            version: 0,
            receives,
            candidates: 0,
        })
    }

    /// What the connection begins with.
    pub(super) fn setup(&self) -> Setup {
        Setup {
            identity: Arc::clone(&self.identity),
            role: self.role,
            fingerprints: self.fingerprints.clone(),
            ice_role: if self.taken.is_lite() { Role::Controlling } else { Role::Controlled },
            local: self.local.clone(),
            remote: self.taken.ice.clone(),
            candidates: self.taken.addresses(),
            ssrcs: self.ssrcs,
            cname: self.cname.clone(),
        }
    }

    /// Our credentials.
    pub(super) fn local(&self) -> &Credentials {
        &self.local
    }

    /// The answer to the offer that was taken last.
    pub(super) fn answer(&mut self) -> Answer {
        self.version += 1;
        Answer { sdp: self.text(), etag: self.local.ufrag.clone() }
    }

    fn text(&self) -> String {
        let own = Own {
            ice: &self.local,
            role: self.role,
            fingerprint: &self.identity.fingerprint,
            candidates: &self.own_candidates,
            ssrcs: self.ssrcs,
            cname: &self.cname,
            session: self.session,
            version: self.version,
        };
        description::watched(&self.taken, &own)
    }

    /// The addresses of a fragment's candidates, those that can be sent to.
    pub(super) fn candidates(&mut self, fragment: &Fragment) -> Result<Vec<SocketAddr>, PeerError> {
        if fragment.ufrag != self.taken.ice.ufrag {
            return Err(PeerError::Fragment(
                "its ice-ufrag is not the offer's; to restart ICE send `If-Match: *`".into(),
            ));
        }
        let lines = fragment.candidates.iter().map(|candidate| candidate.candidate.trim_start_matches("candidate:"));
        let addresses: Vec<SocketAddr> = lines.filter_map(description::address).collect();
        self.candidates += addresses.len();
        if self.candidates > CANDIDATES_MAX {
            return Err(PeerError::Fragment(format!("more than {CANDIDATES_MAX} candidates; send fewer")));
        }
        Ok(addresses)
    }

    /// Takes new credentials of the client, and makes new ones of ours; gives our fragment.
    pub(super) fn restart(&mut self, fragment: &Fragment) -> Result<String, PeerError> {
        if fragment.ufrag == self.taken.ice.ufrag {
            return Err(PeerError::Fragment("its ice-ufrag is the one in use; a restart needs a new one".into()));
        }
        self.taken.ice = Credentials { ufrag: fragment.ufrag.clone(), password: fragment.pwd.clone() };
        self.local = Credentials::random();
        self.candidates = 0;
        Ok(description::fragment(&self.text(), &self.local, &self.own_candidates))
    }

    /// Takes another offer; true when it restarts ICE.
    pub(super) fn renegotiate(&mut self, offer: &Offer, text: &str, facts: &Facts) -> Result<bool, PeerError> {
        if !facts.sends.is_empty() {
            return Err(PeerError::Offer("this session only receives; join again to send".into()));
        }
        if fingerprints(offer) != self.fingerprints {
            return Err(PeerError::Offer("its certificate is another one; join again".into()));
        }
        let wanted = receives(facts);
        let video = wanted.video.map(|video| self.receives.video.unwrap_or(video));
        let taken = description::take(offer, text, Receives { video, ..wanted }, &[])?;
        let restarts = taken.ice.ufrag != self.taken.ice.ufrag;
        self.receives.video = self.receives.video.or(video);
        self.taken = taken;
        if restarts {
            self.local = Credentials::random();
            self.candidates = 0;
        }
        Ok(restarts)
    }
}

fn fingerprints(offer: &Offer) -> Vec<String> {
    let sha256 = offer.fingerprints.iter().filter(|fingerprint| fingerprint.algorithm == "sha-256");
    sha256.map(|fingerprint| fingerprint.value.clone()).collect()
}
