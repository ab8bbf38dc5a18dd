//! `kind u8, a line of JSON`: what is asked and answered on the control socket.

use vpn::control::{Request, Response, Status, render};

/// What is read is written, and read again, as the same; every status can be shown to a person.
pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, line)) = bytes.split_first() else { return };
    if kind & 1 == 0 {
        if let Ok(request) = serde_json::from_slice::<Request>(line) {
            let written = serde_json::to_vec(&request).expect("JSON");
            assert_eq!(serde_json::from_slice::<Request>(&written).ok(), Some(request));
        }
    } else if let Ok(response) = serde_json::from_slice::<Response>(line) {
        check(&response);
    }
}

fn check(response: &Response) {
    let written = serde_json::to_string(response).expect("JSON");
    assert!(!written.contains('\n'), "more than a line: {written:?}");
    let again: Response = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(serde_json::to_string(&again).expect("JSON"), written);
    if let Response::Status { tunnel } = again {
        let shown = render(&Status { tunnels: vec![*tunnel] });
        assert!(shown.starts_with("interface: ") && shown.ends_with('\n'), "{shown:?}");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let session = "{\"rtt_ms\":12.5,\"sent_bytes\":5242880,\"retransmitted_bytes\":0,\"received_bytes\":3,\
                   \"goodput_sent_bytes\":1,\"goodput_received_bytes\":900}";
    let peer = format!(
        "{{\"name\":\"alice\",\"public_key\":\"k\",\"addresses\":[\"10.77.0.2\"],\"state\":\"up\",\
         \"remote\":\"192.0.2.2:1\",\"handshake_age_s\":7.5,\"session\":{session},\"flows\":{{\"open\":3,\"total\":120}}}}"
    );
    let carrier = "{\"mode\":\"handshake+advance\",\"local\":\"192.0.2.7:5\",\"remote\":\"203.0.113.9:443\",\"age_s\":80.4,\
                   \"rtt_ms\":101.25,\"loss_out\":0.02,\"loss_in\":0.0,\"send_path\":\"raw\"}";
    let tunnel = |role: &str, peers: &str| {
        format!(
            "{{\"response\":\"status\",\"tunnel\":{{\"name\":\"x\",\"role\":\"{role}\",\"state\":\"up\",\"reason\":null,\
             \"interface\":\"vpn0\",\"public_key\":\"k\",\"server\":\"203.0.113.9:443\",\"addresses\":[\"10.77.0.2/24\"],\
             \"age_s\":3725.0,\"carriers\":[{carrier}],\"migrations\":2,\"session\":{session},\
             \"flows\":{{\"open\":3,\"total\":120}},\"limits\":{{\"session_buffer\":1,\"process_buffer\":2,\"buffered\":3}},\
             \"injected\":{{\"rst\":3,\"fin\":0}},\"drops\":{{\"replay\":7}},\"peers\":[{peers}]}}}}"
        )
    };
    let request = |text: &str| [&[0], text.as_bytes()].concat();
    let response = |text: &str| [&[1], text.as_bytes()].concat();
    vec![
        request("{\"request\":\"status\"}"),
        request("{\"request\":\"down\"}"),
        response("{\"response\":\"done\"}"),
        response("{\"response\":\"error\",\"message\":\"no\"}"),
        response(&tunnel("client", "")),
        response(&tunnel("server", &peer)),
    ]
}
