//! `segment size u16, packet`: cutting what the kernel or the card merged, against the carrier's own reading of it.

use std::ops::Range;

use vpn::carrier::{Flags, Segment, parse};
use vpn::io::gso::{self, SMALLEST_SEGMENT};

use super::input::Input;

/// Every piece is a packet of the same connection, at most `size` long, its numbers and bytes those of its place;
/// nothing is handed out of what is refused.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (size, mut packet) = (usize::from(input.u16()), input.rest().to_vec());
    let whole = parse(&packet);
    let original = packet.clone();
    let Ok(trimmed) = gso::trim(&mut packet) else {
        return assert!(whole.is_err(), "refused {original:02x?}, which is TCP");
    };
    let mut pieces = Vec::new();
    let result = gso::cut(trimmed, size, |piece| {
        pieces.push(piece.to_vec());
        // Whoever takes a packet opens it in place.
        piece.fill(0xee);
    });
    assert_eq!(result.is_ok(), size >= SMALLEST_SEGMENT);
    assert_eq!(pieces.len(), result.unwrap_or(0));
    if let (Ok(whole), true) = (whole, result.is_ok()) {
        compare(&whole, &original, &pieces, size);
    }
}

fn compare(whole: &Segment, original: &[u8], pieces: &[Vec<u8>], size: usize) {
    let expected = joined_of(whole, size);
    assert_eq!(pieces.len(), expected.len());
    for (number, (piece, expected)) in pieces.iter().zip(&expected).enumerate() {
        let cut =
            parse(piece).unwrap_or_else(|reason| panic!("piece {number} of {original:02x?}: {reason:?}"));
        assert_eq!((cut.source, cut.destination), (whole.source, whole.destination));
        assert_eq!((cut.seq, cut.ack, cut.window), (expected.seq, whole.ack, whole.window));
        assert_eq!(piece[cut.payload.clone()], original[expected.payload.clone()], "piece {number}");
        assert_eq!(cut.payload.end, piece.len());
        let ends = Flags::FIN.0 | Flags::PSH.0;
        let is_last = number + 1 == pieces.len();
        assert_eq!(cut.flags.0 & ends, if is_last { whole.flags.0 & ends } else { 0 });
    }
}

/// The segments that a card would have joined to this one: each but the last with so many bytes.
fn joined_of(whole: &Segment, size: usize) -> Vec<Segment> {
    let Range { start, end } = whole.payload;
    let cuts = (start..end.max(start + 1)).step_by(size);
    let piece = |at: usize| Segment {
        seq: whole.seq.advanced_by(at - start),
        payload: at..end.min(at + size),
        ..whole.clone()
    };
    cuts.map(piece).collect()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = super::carrier::packet_seeds();
    for seed in &mut seeds {
        seed[..2].copy_from_slice(&16_u16.to_le_bytes());
    }
    seeds
}
