//! What the simulation has found, each in its smallest form.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::time::Duration;

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
