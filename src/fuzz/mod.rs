//! The fuzz targets: for each parser and state machine that receives bytes of others, a function that takes any bytes.
//!
//! Owns: the list of targets, and how bytes become pieces. Does not know: the fuzzer, which is `tests/fuzz`. A bug is a
//! panic: targets also assert what always holds. This module is not part of the product: it is compiled for tests, which
//! replay the corpora, and with `--cfg fuzzing`.

mod media;
mod text;

use crate::{codec, http, net, peer, transport};

/// Most pieces of one input.
const PIECES_MAX: usize = 256;

/// A target: it takes any bytes.
pub type Fuzz = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Fuzz); 29] = [
    ("sdp", |bytes| peer::fuzz::sdp(&lossy(bytes))),
    ("sdp_answer", |bytes| text::sdp_answer(&lossy(bytes))),
    ("sdpfrag", |bytes| text::sdpfrag(&lossy(bytes))),
    ("stun", |bytes| transport::fuzz::stun(&pieces(bytes))),
    ("turn", |bytes| net::turn::fuzz::turn(&pieces(bytes))),
    ("dtls", |bytes| transport::fuzz::dtls(&pieces(bytes))),
    ("srtp", |bytes| transport::fuzz::srtp(&pieces(bytes))),
    ("rtp", |bytes| peer::fuzz::packets(&pieces(bytes))),
    ("link", media::link),
    ("depay", |bytes| media::depay(&pieces(bytes))),
    ("codec_header", media::codec_header),
    ("opus", |bytes| media::opus(&pieces(bytes))),
    ("rtmp_server", |bytes| media::rtmp_server(&pieces(bytes))),
    ("rtmp_client", |bytes| media::rtmp_client(&pieces(bytes))),
    ("flv", |bytes| media::flv(&pieces(bytes))),
    ("ts", |bytes| codec::intake::fuzz::ts(&pieces(bytes))),
    ("timestamps", |bytes| codec::intake::fuzz::timestamps(&pieces(bytes))),
    ("mp4_header", codec::intake::fuzz::mp4_header),
    ("container_write", |bytes| media::container_write(&pieces(bytes))),
    ("container_repair", |bytes| media::container_repair(&pieces(bytes))),
    ("ivf", media::ivf),
    ("hls", |bytes| media::hls(&pieces(bytes))),
    ("url", |bytes| text::url(&lossy(bytes))),
    ("headers", http::api::fuzz::headers),
    ("token", |bytes| http::auth::fuzz(&lossy(bytes))),
    ("command", |bytes| text::command(&lossy(bytes))),
    ("config", |bytes| crate::config::fuzz(&lossy(bytes))),
    ("filter", |bytes| text::filter(&lossy(bytes))),
    ("image", text::image),
];

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The pieces of an input: an operation, a length in two bytes, and as many bytes as there are of it.
fn pieces(bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut rest = bytes;
    let next = || {
        let [op, high, low, behind @ ..] = rest else { return None };
        let (piece, behind) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(behind.len()));
        rest = behind;
        Some((*op, piece))
    };
    std::iter::from_fn(next).take(PIECES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{fs, panic};

    use super::*;

    #[test]
    fn inputs_are_cut_into_pieces() {
        let expected: Vec<(u8, &[u8])> = vec![(7, &[1, 2]), (8, &[]), (9, &[3])];
        assert_eq!(pieces(&[7, 0, 2, 1, 2, 8, 0, 0, 9, 1, 0, 3]), expected);
    }

    #[test]
    fn every_target_handles_its_corpus() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let files = fs::read_dir(corpora.join(name)).expect("every target has a corpus");
            let files: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
            assert!(!files.is_empty(), "the corpus of {name} is empty");
            for file in files {
                let bytes = fs::read(&file).expect("readable");
                if panic::catch_unwind(|| target(&bytes)).is_err() {
                    panic!("{} breaks the target {name}; its panic is above", file.display());
                }
            }
        }
    }
}
