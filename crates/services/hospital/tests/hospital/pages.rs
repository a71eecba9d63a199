//! Pages that stay below the size that clients accept.

use contract::hospital::v1;
use domain::page::MAX_BYTES;
use prost::Message;
use testkit::rush;

use crate::support::House;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_long_notes_ends_early_and_the_next_goes_on_there() {
    const COUNT: usize = 700;
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 5).await;
    let marketing = house.marketing().await;
    let made = rush(COUNT, |i| {
        let (party, slot) = (marketing.clone(), slot.clone());
        let request = v1::CapacityRequest {
            slot,
            additional_capacity: i32::try_from(i + 1).unwrap(),
            justification: "\u{1F600}".repeat(500),
            ..Default::default()
        };
        let request = v1::CreateCapacityRequestRequest {
            parent: "hospitals/seoul".into(),
            capacity_request: Some(request),
            request_id: String::new(),
        };
        async move { party.hospital().create_capacity_request(request).await }
    })
    .await;
    let mut names: Vec<String> = made.into_iter().map(|made| made.unwrap().into_inner().name).collect();
    let mut request =
        v1::ListCapacityRequestsRequest { parent: "hospitals/seoul".into(), page_size: 1_000, ..Default::default() };
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = marketing.hospital().list_capacity_requests(request.clone()).await.unwrap().into_inner();
        assert!(page.encoded_len() <= MAX_BYTES, "{} bytes", page.encoded_len());
        pages += 1;
        seen.extend(page.capacity_requests.into_iter().map(|one| one.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages, 2, "1.4 MB of notes");
    assert!(seen.is_sorted_by(|one, other| one > other), "newest first, each once");
    names.sort();
    seen.reverse();
    assert_eq!(seen, names);
    house.stop().await;
}
