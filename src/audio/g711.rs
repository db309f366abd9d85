//! G.711 decoding: mu-law and A-law (ITU-T G.711), as tables.

const ULAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = expand_ulaw(byte as u8);
        byte += 1;
    }
    table
};

const ALAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = expand_alaw(byte as u8);
        byte += 1;
    }
    table
};

/// Sign, three bits of exponent, four of mantissa, all inverted; the segments are shifted by a bias of 33 (here in 16
/// bits: 132).
const fn expand_ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = ((((byte & 0x0f) as i16) << 3) + 132) << ((byte >> 4) & 7);
    if byte & 0x80 == 0 { magnitude - 132 } else { 132 - magnitude }
}

/// The same with every other bit inverted, no bias, and a first segment as fine as the second.
const fn expand_alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let mantissa = (((byte & 0x0f) as i16) << 4) + 8;
    let exponent = (byte >> 4) & 7;
    let magnitude = if exponent == 0 { mantissa } else { (mantissa + 256) << (exponent - 1) };
    if byte & 0x80 == 0 { -magnitude } else { magnitude }
}

/// One mu-law byte as a linear sample of 16 bits.
pub fn ulaw_to_linear(byte: u8) -> i16 {
    ULAW[usize::from(byte)]
}

/// One A-law byte as a linear sample of 16 bits.
pub fn alaw_to_linear(byte: u8) -> i16 {
    ALAW[usize::from(byte)]
}

/// A PCMU payload (RFC 3551 §4.5.14) as samples at 8 kHz, appended to `out`.
pub fn decode_ulaw(payload: &[u8], out: &mut Vec<f32>) {
    out.extend(payload.iter().map(|byte| f32::from(ulaw_to_linear(*byte)) / 32_768.0));
}

/// A PCMA payload (RFC 3551 §4.5.14) as samples at 8 kHz, appended to `out`.
pub fn decode_alaw(payload: &[u8], out: &mut Vec<f32>) {
    out.extend(payload.iter().map(|byte| f32::from(alaw_to_linear(*byte)) / 32_768.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_match_the_standard() {
        // Values of the ITU-T tables: both ends, both zeros, and one of the middle.
        let ulaw =
            [(0x00, -32_124), (0x80, 32_124), (0x7f, 0), (0xff, 0), (0xfe, 8), (0x7e, -8), (0xef, 132), (0x8f, 16_764)];
        for (byte, linear) in ulaw {
            assert_eq!(ulaw_to_linear(byte), linear, "mu-law {byte:#x}");
        }
        let alaw = [(0xd5, 8), (0x55, -8), (0xaa, 32_256), (0x2a, -32_256), (0xc5, 264), (0x80, 5_504)];
        for (byte, linear) in alaw {
            assert_eq!(alaw_to_linear(byte), linear, "A-law {byte:#x}");
        }
    }

    #[test]
    fn every_magnitude_has_both_signs_and_steps_grow() {
        for byte in 0..128_u8 {
            assert_eq!(ulaw_to_linear(byte), -ulaw_to_linear(byte | 0x80));
            assert_eq!(alaw_to_linear(byte), -alaw_to_linear(byte | 0x80));
        }
        let mut all: Vec<i16> = (0..=255).map(alaw_to_linear).collect();
        all.sort_unstable();
        assert!(all.windows(2).all(|w| w[0] < w[1]), "256 different values");
        let rising: Vec<i16> = (0x80..=0xff).rev().map(ulaw_to_linear).collect();
        assert!(rising.windows(2).all(|w| w[0] < w[1]));
        assert!(rising.windows(3).all(|w| w[1] - w[0] <= w[2] - w[1]));
    }

    #[test]
    fn payloads_become_samples() {
        let mut out = vec![0.5];
        decode_ulaw(&[0xff, 0x80], &mut out);
        decode_alaw(&[0xaa], &mut out);
        assert_eq!(out, [0.5, 0.0, 32_124.0 / 32_768.0, 32_256.0 / 32_768.0]);
    }
}
