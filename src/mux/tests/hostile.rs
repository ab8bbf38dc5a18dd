//! A peer that breaks the rules: each offence has its answer, and nothing grows without a bound.

use proptest::prelude::*;

use super::*;

/// A server with one stream, 1, accepted and quiet.
fn server() -> Mux {
    let mut server = Mux::new(Role::Server, small_limits());
    receive(&mut server, &[Frame::Open { id: id(1), target: target() }]).unwrap();
    assert!(matches!(server.poll_event(), Some(Event::Open { .. })));
    server.accept(id(1));
    assert_eq!(sent_by(&mut server), ["Opened(StreamId(1))"]);
    server
}

fn receive(mux: &mut Mux, frames: &[Frame<'_>]) -> Result<(), Violation> {
    mux.handle_message(&message(frames), start())
}

#[test]
fn nonsense_closes_the_session_by_name() {
    let open = |open: u32| Frame::Open { id: id(open), target: target() };
    let data = |data: u32| Frame::Data { id: id(data), bytes: b"x" };
    let credit = Frame::Credit { id: id(3), limit: 1 << 20 };
    let reset = Frame::Reset { id: id(2), code: ResetCode::Reset };
    for (frames, violation) in [
        (vec![open(2)], Violation::WrongSide(id(2))),
        (vec![open(1)], Violation::Reused(id(1))),
        (vec![open(7), open(5)], Violation::Reused(id(5))),
        (vec![data(3)], Violation::NeverOpened(id(3))),
        (vec![Frame::Fin(id(3))], Violation::NeverOpened(id(3))),
        (vec![credit], Violation::NeverOpened(id(3))),
        (vec![reset], Violation::NeverOpened(id(2))),
        (vec![Frame::Opened(id(2))], Violation::NeverOpened(id(2))),
        (vec![Frame::Opened(id(1))], Violation::Unasked(id(1))),
    ] {
        assert_eq!(receive(&mut server(), &frames), Err(violation), "{frames:?}");
    }
    let bytes = [9, 0];
    let violation = Violation::Malformed(Malformed::Type(0));
    assert_eq!(server().handle_message(&bytes, start()), Err(violation));
}

#[test]
fn an_acceptor_says_opened_once_and_before_its_bytes() {
    let mut client = Mux::new(Role::Client, Limits::default());
    let own = client.open(target(), start()).unwrap();
    assert_eq!(receive(&mut client, &[Frame::Opened(own)]), Err(Violation::NeverOpened(own)));
    assert_eq!(sent_by(&mut client).len(), 1);
    let data = Frame::Data { id: own, bytes: b"x" };
    assert_eq!(receive(&mut client, &[data]), Err(Violation::NotAccepted(own)));
    assert_eq!(receive(&mut client, &[Frame::Fin(own)]), Err(Violation::NotAccepted(own)));
    assert_eq!(receive(&mut client, &[Frame::Opened(own), data]), Ok(()));
    assert_eq!(receive(&mut client, &[Frame::Opened(own)]), Err(Violation::Unasked(own)));
}

#[test]
fn offences_on_a_stream_reset_that_stream_and_no_other() {
    let fin = Frame::Fin(id(1));
    let data = Frame::Data { id: id(1), bytes: b"x" };
    let full = [0; 65_535];
    let overrun = Frame::Data { id: id(1), bytes: &full };
    let shrunk = Frame::Credit { id: id(1), limit: 65_535 };
    for (frames, counted) in [
        (vec![fin, data], Stats { data_after_fin: 1, ..Stats::default() }),
        (vec![fin, fin], Stats { data_after_fin: 1, ..Stats::default() }),
        // Whether or not what came before it was read.
        (vec![data, fin, data], Stats { data_after_fin: 1, ..Stats::default() }),
        (vec![data, fin, fin], Stats { data_after_fin: 1, ..Stats::default() }),
        (vec![data, overrun, data], Stats { credit_overruns: 1, ..Stats::default() }),
        (vec![shrunk], Stats { credit_shrinks: 1, ..Stats::default() }),
    ] {
        let mut server = server();
        receive(&mut server, &[Frame::Open { id: id(3), target: target() }]).unwrap();
        assert!(matches!(server.poll_event(), Some(Event::Open { .. })));
        receive(&mut server, &frames).unwrap();
        let stats = server.stats();
        assert_eq!(
            (stats.data_after_fin, stats.credit_overruns, stats.credit_shrinks),
            (counted.data_after_fin, counted.credit_overruns, counted.credit_shrinks),
            "{frames:?}"
        );
        let code = ResetCode::Reset;
        assert_eq!(sent_by(&mut server), ["Reset { id: StreamId(1), code: Reset }"]);
        let told: Vec<_> = std::iter::from_fn(|| server.poll_event()).collect();
        assert_eq!(told.last(), Some(&Event::Reset { id: id(1), code }), "{told:?}");
        assert_eq!((server.stats().streams, server.stats().receive_buffered), (1, 0));
        // What the peer sends before it hears of the reset is ignored.
        receive(&mut server, &[data, fin, shrunk]).unwrap();
    }
}

#[test]
fn a_goaway_that_is_repeated_is_told_once() {
    let mut server = server();
    receive(&mut server, &[Frame::GoAway, Frame::GoAway]).unwrap();
    assert_eq!(server.poll_event(), Some(Event::GoAway));
    receive(&mut server, &[Frame::GoAway]).unwrap();
    assert_eq!(server.poll_event(), None);
}

#[test]
fn a_flood_of_opens_stays_bounded() {
    let mut server = Mux::new(Role::Server, small_limits());
    for open in (1..200_001).step_by(2) {
        receive(&mut server, &[Frame::Open { id: id(open), target: target() }]).unwrap();
    }
    assert_eq!(server.stats().streams, 10);
    assert!(server.resets.len() <= 5000, "{}", server.resets.len());
    assert!(server.stats().unanswered_opens > 90_000);
}

#[test]
fn a_flood_of_opens_that_are_refused_one_by_one_stays_bounded() {
    let mut server = Mux::new(Role::Server, small_limits());
    for open in (1..20_001).step_by(2) {
        receive(&mut server, &[Frame::Open { id: id(open), target: target() }]).unwrap();
        while let Some(Event::Open { id, .. }) = server.poll_event() {
            server.reset(id, ResetCode::Denied);
        }
    }
    assert_eq!(server.stats().opened_by_peer, 10);
    assert!(server.resets.len() <= 5000);
}

#[test]
fn a_flood_of_opens_and_resets_leaves_nothing() {
    let mut server = Mux::new(Role::Server, small_limits());
    for open in (1..32_001).step_by(2) {
        let reset = Frame::Reset { id: id(open), code: ResetCode::Reset };
        receive(&mut server, &[Frame::Open { id: id(open), target: target() }, reset]).unwrap();
    }
    assert_eq!(server.stats().streams, 0);
    assert!(server.events.len() < 200, "{}", server.events.len());
    assert_eq!(server.poll_event(), None);
    assert_eq!(server.fill(&mut [0; MESSAGE], start()), 0);
}

#[test]
fn opens_that_come_too_fast_are_refused_until_time_has_passed() {
    let limits = Limits { opens_per_second: 10, streams: 100_000, ..Limits::default() };
    let (mut server, now) = (Mux::new(Role::Server, limits), start());
    let open = |server: &mut Mux, open: u32, now| {
        server.handle_message(&message(&[Frame::Open { id: id(open), target: target() }]), now).unwrap();
    };
    for number in (1..40_001).step_by(2) {
        open(&mut server, number, now);
    }
    let stats = server.stats();
    assert_eq!((stats.streams, stats.hurried_opens, stats.refused_opens), (16_384, 3616, 3616));
    assert!(sent_by(&mut server).iter().all(|frame| frame.contains("code: Limit")));
    for number in (40_001..40_041).step_by(2) {
        open(&mut server, number, now + Duration::from_secs(1));
    }
    assert_eq!((server.stats().streams, server.stats().hurried_opens), (16_394, 3626));
}

#[test]
fn a_flood_of_pings_is_answered_within_reason() {
    let mut server = Mux::new(Role::Server, small_limits());
    for token in 0..1000 {
        receive(&mut server, &[Frame::Ping(token)]).unwrap();
    }
    assert_eq!(sent_by(&mut server).len(), 16);
    assert_eq!(server.stats().unanswered_pings, 984);
}

/// Frames that often name streams which exist.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = (1_u32..14).prop_map(id);
    let limit = prop_oneof![0_u64..300_000, any::<u64>()];
    prop_oneof![
        3 => stream.clone().prop_map(|id| message(&[Frame::Open { id, target: target() }])),
        1 => stream.clone().prop_map(|id| message(&[Frame::Opened(id)])),
        6 => (stream.clone(), 1_usize..40_000)
            .prop_map(|(id, len)| message(&[Frame::Data { id, bytes: &vec![7; len] }])),
        1 => stream.clone().prop_map(|id| message(&[Frame::Fin(id)])),
        1 => stream.clone().prop_map(|id| message(&[Frame::Reset { id, code: ResetCode::Denied }])),
        2 => (stream, limit).prop_map(|(id, limit)| message(&[Frame::Credit { id, limit }])),
        1 => Just(message(&[Frame::GoAway, Frame::Ping(1), Frame::Pong(2)])),
        1 => proptest::collection::vec(any::<u8>(), 0..100),
    ]
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        // Whatever it says of them, the same end goes on with the next bytes.
        let mut server = server();
        for chunk in bytes.chunks(50) {
            let _ignored = server.handle_message(chunk, start());
        }
        while server.poll_event().is_some() {}
        server.fill(&mut [0; MESSAGE], start());
    }

    #[test]
    fn hostile_frames_keep_to_the_bounds(
        frames in proptest::collection::vec((any_frame(), 0_u8..8, 1_u32..14), 0..200),
    ) {
        let limits = Limits { session_buffer: 300_000, send_buffer: 50_000, ..small_limits() };
        let (mut mux, now) = (Mux::new(Role::Server, limits), start());
        for (frame, command, stream) in frames {
            let _ignored = mux.handle_message(&frame, now);
            let stream = id(stream);
            match command {
                0 => drop(mux.open(target(), now)),
                1 => mux.accept(stream),
                2 => mux.consume(stream, 20_000, now),
                3 => mux.finish(stream),
                4 => mux.reset(stream, ResetCode::Reset),
                5 => drop(mux.poll_event()),
                6 => drop(mux.fill(&mut [0; MESSAGE], now)),
                _ => drop(mux.write(stream, &[1; 30_000])),
            }
            let stats = mux.stats();
            prop_assert!(stats.streams <= 10);
            prop_assert!(stats.receive_buffered <= 225_000 && stats.send_buffered <= 75_000);
            prop_assert!(mux.events.len() <= 100 && mux.resets.len() <= 5000);
            let (mut sending, mut receiving) = (0, 0);
            for id in (1..14).map(id) {
                let Some(stream) = mux.streams.get(&id) else { continue };
                sending += stream.send.queue.len();
                receiving += stream.receive.queue.len();
            }
            let (sent, received) = (stats.send_buffered, stats.receive_buffered);
            prop_assert!(sending <= sent && receiving == received);
        }
    }
}
