package main

import (
	"context"
	"io"

	"carrel"
	"carrel/protocol"
)

// localFiles are the files of this process's own orchestrator.
type localFiles struct{ o *carrel.Orchestrator }

// localPage is how many names localFiles lists at a time.
const localPage = 1000

func (l localFiles) ListFiles(ctx context.Context, userID, path, cursor string) (protocol.FileList, error) {
	dir, err := l.o.OpenFile(ctx, userID, path)
	if err != nil {
		return protocol.FileList{}, err
	}
	defer func() { _ = dir.Close() }()
	if dir.Info().Type != protocol.FileDirectory {
		return protocol.FileList{}, protocol.Errorf(protocol.CodeConflict, "%q is no directory", path)
	}
	return dir.List(ctx, cursor, localPage)
}

func (l localFiles) GetFile(ctx context.Context, userID, path string) (io.ReadCloser, int64, error) {
	file, err := l.o.OpenFile(ctx, userID, path)
	if err != nil {
		return nil, 0, err
	}
	if info := file.Info(); info.Type != protocol.FileRegular {
		_ = file.Close()
		return nil, 0, protocol.Errorf(protocol.CodeConflict, "%q is a directory; ask for an archive of it", info.Name)
	}
	return file, file.Info().Size, nil
}

func (l localFiles) GetArchive(ctx context.Context, userID, path string) (io.ReadCloser, error) {
	dir, err := l.o.OpenFile(ctx, userID, path)
	if err != nil {
		return nil, err
	}
	reader, writer := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := dir.Archive(ctx, writer)
		_ = writer.CloseWithError(err) // nil is the end
	}()
	return archiveReader{reader, func() error { <-done; return dir.Close() }}, nil
}

// archiveReader is an archive that is being written; Close waits for its writer.
type archiveReader struct {
	*io.PipeReader

	after func() error
}

func (a archiveReader) Close() error {
	_ = a.PipeReader.Close() // never an error
	return a.after()
}

func (l localFiles) PutFile(ctx context.Context, userID, path string, content io.Reader, bytes int64) (protocol.FileInfo, error) {
	stored, err := l.o.PutFile(ctx, userID, carrel.FileUpload{Path: path, Body: content, Bytes: bytes})
	return stored.Info, err
}

func (l localFiles) PutArchive(ctx context.Context, userID, path string, archive io.Reader) (protocol.UnpackResult, error) {
	return l.o.UnpackFiles(ctx, userID, carrel.FileUpload{Path: path, Body: archive, Bytes: -1})
}

func (l localFiles) DeleteFile(ctx context.Context, userID, path string) error {
	return l.o.DeleteFile(ctx, userID, path, nil)
}
