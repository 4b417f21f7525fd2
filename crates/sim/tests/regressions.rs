//! What the simulation has found, each in its smallest form.
use std::time::Duration;

use tokio::time::timeout;
use umbra_proto::shadowsocks::Method;
use umbra_sim::link::{Fault, FaultKind};
use umbra_sim::peer::{Ending, Heard, socks5_request};
use umbra_sim::seed::one_seed;
use umbra_sim::street::{Plan, Street};

#[test]
fn a_client_lost_while_it_is_answered_does_not_end_its_target_in_order() {
    one_seed(320, |net, _| async move {
        let mut plan = Plan::direct();
        plan.links[0].downlink.fault = Some(Fault { at_byte: 5, kind: FaultKind::Reset });
        let mut street = Street::lay(&net, &plan);
        let client = street.enter().await;
        client.say(&socks5_request(&Street::target())).await.unwrap();
        client.say(b"words that are lost").await.unwrap();
        let target = street.arrive().await;
        assert_eq!(target.hear_out().await, Heard { bytes: Vec::new(), ending: Ending::Reset });
        drop((client, target));
        street.empties(Duration::from_secs(1)).await;
    });
}

#[test]
fn a_false_readiness_does_not_keep_the_request_from_a_server_that_speaks_first() {
    one_seed(9, |net, _| async move {
        let mut plan = Plan::pair(Method::Blake3Aes256Gcm);
        // Every wait for the client ends at once, and every read finds nothing, until it has something to say.
        plan.links[0].uplink.false_readiness_one_in = 2;
        let mut street = Street::lay(&net, &plan);
        for _ in 0..20 {
            let client = street.enter().await;
            assert_eq!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 0);
            let target = timeout(Duration::from_secs(1), street.arrive()).await.unwrap();
            target.say(b"220 ready\r\n").await.unwrap();
            assert_eq!(client.hear(11).await.unwrap(), b"220 ready\r\n");
        }
        street.empties(Duration::from_secs(1)).await;
    });
}

#[test]
fn a_reset_that_one_direction_is_told_of_is_no_orderly_end_to_the_other() {
    for plan in [Plan::direct(), Plan::pair(Method::Aes256Gcm), Plan::pair(Method::Blake3Aes256Gcm)] {
        let plan = &plan;
        one_seed(12, |net, _| async move {
            let mut street = Street::lay(&net, plan);
            let client = street.enter().await;
            assert_eq!(client.ask_socks5(&Street::target(), b"question").await.unwrap(), 0);
            let target = street.arrive().await;
            assert_eq!(target.hear(8).await.unwrap(), b"question");
            target.say(b"half an ans").await.unwrap();
            assert_eq!(client.hear(11).await.unwrap(), b"half an ans");
            // The door finds both at once: words to pass on, and nobody to pass them to.
            target.reset();
            client.say(b"another question").await.unwrap();
            assert_eq!(client.hear_out().await, Heard { bytes: Vec::new(), ending: Ending::Reset });
            drop(client);
            street.empties(Duration::from_secs(1)).await;
        });
    }
}
