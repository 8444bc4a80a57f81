package kubeconfig

import "k8s.io/client-go/tools/clientcmd/api"

// PluginUser is the user whose credential the program culvert gets whenever one is
// needed: the exec credential plugin culvert credential with these arguments. There is
// no secret in it.
func PluginUser(command string, args ...string) *api.AuthInfo {
	user := api.NewAuthInfo()
	user.Exec = &api.ExecConfig{
		APIVersion: "client.authentication.k8s.io/v1", Command: command, Args: append([]string{"credential"}, args...),
		InteractiveMode: api.NeverExecInteractiveMode,
		InstallHint:     "The program culvert gets the credential for the hub. It has to be in the PATH.",
	}
	return user
}
