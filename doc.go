// Package carrel gives every user of a product a sandboxed worker process in
// which that user's agent runs. It is the front door for programs that embed it;
// the command carrel is one of them.
//
//	cfg, err := carrel.LoadConfig(carrel.ConfigSource{Environ: os.Environ()})
//	o, err := carrel.New(ctx, cfg)
//	run, err := o.Execute(ctx, protocol.ExecuteRequest{UserID: "ana", Message: "ls -l"})
//	for event, err := range o.Events(ctx, run.RunID, 0) { … }
//	err = o.Shutdown(ctx)
package carrel
