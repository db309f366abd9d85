//! What one session has agreed with its client, in SDP.
//!
//! Owns: the agreement on the latest offer, our ICE credentials, the session's answer text. Does not know: connections.
//! Offers and fragments go in; what changes for the connection comes out, with the text for the client. A step that
//! fails changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use super::connection::Setup;
use super::description::{self, Agreement, CANDIDATES_MAX, DtlsRole, Local, Receives};
use super::ssrcs::Ssrcs;
use super::{Answer, PeerError};
use crate::media::SourceKind;
use crate::sdp::{Facts, Fragment, Offer, candidate_address};
use crate::transport;
use crate::transport::ice::{Credentials, Role};
use crate::transport::secure::Identity;

pub(super) struct Negotiation {
    identity: Arc<Identity>,
    /// Candidates of the media port, as SDP writes them.
    own_candidates: Vec<String>,
    agreement: Agreement,
    /// Which source each section of the client carries.
    kinds: Vec<(String, SourceKind)>,
    /// As agreed in the first answer.
    role: DtlsRole,
    local: Credentials,
    ssrcs: Ssrcs,
    cname: String,
    session: u64,
    version: u64,
    /// Media that the client receives. Video keeps its codec when a later offer prefers another one.
    receives: Receives,
    /// Candidates taken in this ICE session.
    candidates: usize,
}

fn receives(facts: &Facts) -> Receives {
    Receives { audio: facts.receives_audio.is_some(), video: facts.receives_video }
}

impl Negotiation {
    pub(super) fn begin(
        identity: Arc<Identity>,
        own_candidates: Vec<String>,
        offer: &Offer,
        facts: &Facts,
    ) -> Result<Self, PeerError> {
        let receives = receives(facts);
        let agreement = description::take(offer, receives)?;
        Ok(Self {
            identity,
            own_candidates,
            role: agreement.dtls_role,
            agreement,
            kinds: facts.sends.clone(),
            local: Credentials::random(),
            ssrcs: Ssrcs::apart_from(offer),
            cname: transport::cname(),
            // Some clients read numeric strings of SDP into 63 bits.
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
            fingerprints: self.agreement.fingerprints.clone(),
            ice_role: if self.agreement.is_lite { Role::Controlling } else { Role::Controlled },
            local: self.local.clone(),
            remote: self.agreement.ice.clone(),
            candidates: self.agreement.addresses.clone(),
            ssrcs: self.ssrcs,
            cname: self.cname.clone(),
        }
    }

    pub(super) fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    pub(super) fn kinds(&self) -> &[(String, SourceKind)] {
        &self.kinds
    }

    /// Our ICE credentials.
    pub(super) fn local(&self) -> &Credentials {
        &self.local
    }

    /// The client's ICE credentials.
    pub(super) fn remote(&self) -> &Credentials {
        &self.agreement.ice
    }

    /// The answer to the latest offer.
    pub(super) fn answer(&mut self) -> Answer {
        self.version += 1;
        let local = Local {
            ice: &self.local,
            role: self.role,
            fingerprint: &self.identity.fingerprint,
            candidates: &self.own_candidates,
            ssrcs: self.ssrcs,
            cname: &self.cname,
            session: self.session,
            version: self.version,
        };
        Answer { sdp: description::answer(&self.agreement, &local), etag: self.local.ufrag.clone() }
    }

    /// The addresses of a fragment's candidates. RFC 9725 section 4.3.2: a candidate that cannot be used is dropped in
    /// silence.
    pub(super) fn candidates(&mut self, fragment: &Fragment) -> Result<Vec<SocketAddr>, PeerError> {
        if fragment.ufrag != self.agreement.ice.ufrag {
            return Err(PeerError::Fragment(
                "its ice-ufrag is not the offer's; to restart ICE send `If-Match: *`".into(),
            ));
        }
        let addresses = addresses(fragment);
        if self.candidates + addresses.len() > CANDIDATES_MAX {
            return Err(PeerError::Fragment(format!("more than {CANDIDATES_MAX} candidates; send fewer")));
        }
        self.candidates += addresses.len();
        Ok(addresses)
    }

    /// Takes new credentials of the client, and makes new ones of ours; gives our fragment, and the addresses of the
    /// client's candidates: without them the new ICE session would learn addresses only by the client's checks.
    pub(super) fn restart(&mut self, fragment: &Fragment) -> Result<(String, Vec<SocketAddr>), PeerError> {
        if fragment.ufrag == self.agreement.ice.ufrag {
            return Err(PeerError::Fragment("its ice-ufrag is the one in use; a restart needs a new one".into()));
        }
        let addresses = addresses(fragment);
        if addresses.len() > CANDIDATES_MAX {
            return Err(PeerError::Fragment(format!("more than {CANDIDATES_MAX} candidates; send fewer")));
        }
        self.agreement.ice = Credentials { ufrag: fragment.ufrag.clone(), password: fragment.pwd.clone() };
        self.local = Credentials::random();
        self.candidates = addresses.len();
        Ok((description::fragment(&self.agreement, &self.local, &self.own_candidates), addresses))
    }

    /// Takes another offer; true when it restarts ICE.
    pub(super) fn renegotiate(&mut self, offer: &Offer, facts: &Facts) -> Result<bool, PeerError> {
        let wanted = receives(facts);
        let video = wanted.video.map(|video| self.receives.video.unwrap_or(video));
        let agreement = description::take(offer, Receives { video, ..wanted })?;
        if agreement.fingerprints != self.agreement.fingerprints {
            return Err(PeerError::Offer("its certificate is another one; join again".into()));
        }
        let restarts = agreement.ice.ufrag != self.agreement.ice.ufrag;
        self.receives.video = self.receives.video.or(video);
        self.agreement = agreement;
        self.kinds = facts.sends.clone();
        if restarts {
            self.local = Credentials::random();
            self.candidates = 0;
        }
        Ok(restarts)
    }
}

fn addresses(fragment: &Fragment) -> Vec<SocketAddr> {
    let candidates = fragment.candidates.iter().filter_map(|trickled| trickled.candidate.strip_prefix("candidate:"));
    candidates.filter_map(candidate_address).collect()
}
