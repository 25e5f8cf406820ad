use super::*;

#[test]
fn what_was_written_is_read_back() {
    let fs = SimFs::new(1);
    fs.create_dir(Path::new("/db")).expect("created");
    let file = fs.create(Path::new("/db/a")).expect("created");
    file.write_at(0, b"abc").expect("written");
    assert_eq!(fs.contents(Path::new("/db/a")).expect("there"), b"abc");
    let mut buffer = [0; 8];
    assert_eq!(file.read_at(1, &mut buffer).expect("read"), 2);
    assert_eq!(&buffer[..2], b"bc");
}
