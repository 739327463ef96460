package carrel

import (
	"errors"

	"carrel/internal/httpapi"
	"carrel/internal/keyring"
)

// checkKeysFile reports every line of the file of API keys that is at fault.
func (c Config) checkKeysFile() []Fault {
	if c.APIKeysFile == "" {
		return nil
	}
	_, err := keyring.Read(c.APIKeysFile)
	if err == nil {
		return nil
	}
	fault := Fault{Key: "CARREL_API_KEYS_FILE", Value: c.APIKeysFile}
	e, ok := errors.AsType[*keyring.FileError](err)
	if !ok {
		fault.Reason = err.Error()
		return []Fault{fault}
	}
	var faults []Fault
	for _, f := range e.Faults {
		fault.Reason = f.String()
		faults = append(faults, fault)
	}
	return faults
}

// openKeys reads the API keys, if there is a file of them.
func (o *Orchestrator) openKeys() (err error) {
	if o.cfg.APIKeysFile == "" {
		return nil
	}
	o.keys = keyring.New(o.root, o.cfg.APIKeysFile)
	return o.reloads.add("API keys", func() error {
		if err := o.keys.Reload(); err != nil {
			return err
		}
		if o.keys.Len() == 0 {
			o.log.WarnContext(o.root, "the file of API keys holds none, so nobody can sign in; carrel key add makes one")
		}
		return nil
	}, o.cfg.APIKeysFile)
}

// identify tells the HTTP API whose a key is.
func (o *Orchestrator) identify(key string) (httpapi.Caller, bool) {
	held := o.keys.Find(key)
	if held == nil {
		return httpapi.Caller{}, false
	}
	return httpapi.Caller{
		Name:    held.Name,
		Admin:   held.Role == keyring.RoleAdmin,
		User:    held.User,
		Revoked: held.Context,
	}, true
}
