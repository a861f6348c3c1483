use super::*;

#[test]
fn wrong_arguments_are_named() {
    let test = SourceTest::new();
    test.write("tree/x", b"x");
    let [outer, inner] = [test.tree(), test.tree().join("tree")];
    let none: [&Path; 0] = [];
    let cases: Vec<(&str, SourceBuilder, &str)> = vec![
        (
            "no paths",
            Source::builder(none),
            "paths is [], outside at least one",
        ),
        (
            "a small cache",
            test.builder().cache(MIN_CACHE - 1),
            "cache is 4194303, outside 4 MiB and above",
        ),
        (
            "many votes",
            test.builder().read_votes(17),
            "read_votes is 17, outside 0 to 16",
        ),
        ("the root", Source::builder(["/"]), "cannot send /"),
    ];
    for (name, builder, message) in cases {
        assert_eq!(builder.open().unwrap_err().to_string(), message, "{name}");
    }
    let same = Source::builder([&outer, &inner]).open().unwrap_err();
    let CopyError::Source { path, source } = same else {
        panic!("{same}");
    };
    assert_eq!((path, source.kind()), (inner, io::ErrorKind::AlreadyExists));
    let missing = test.tree().join("missing");
    let error = Source::builder([&outer, &missing]).open().unwrap_err();
    let CopyError::Source { path, source } = error else {
        panic!("{error}");
    };
    assert_eq!((path, source.kind()), (missing, io::ErrorKind::NotFound));
    assert!(
        test.builder()
            .cache(MIN_CACHE)
            .read_votes(16)
            .open()
            .is_ok()
    );
}

#[tokio::test]
async fn building_opens_the_paths() {
    let test = SourceTest::new();
    let source = test.builder().build().await.unwrap();
    assert_eq!(source.session(alone()).tree().count(), 2, "in and out");
    assert!(Source::builder(["/missing/path"]).build().await.is_err());
}
