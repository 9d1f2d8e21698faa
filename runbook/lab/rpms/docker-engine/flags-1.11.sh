# The flags of Docker 1.11.1's commands (moby/moby, v1.11.1, api/client/*.go; run and create: runconfig/opts/parse.go).
# Flags with a `:` take a value; the others are booleans, which take one as `--name=true`.
# shellcheck shell=dash disable=SC2034 # docker-1.11 uses them
short='' long=''
case $command in
(attach) long=no-stdin,sig-proxy,detach-keys: ;;
(build)
    short=t:qf:m:c: long=tag:,quiet,no-cache,rm,force-rm,pull,file:,memory:,memory-swap:,shm-size:,cpu-shares:,cpu-period:
    long=$long,cpu-quota:,cpuset-cpus:,cpuset-mems:,cgroup-parent:,build-arg:,isolation:,label:,ulimit:
    long=$long,disable-content-trust
    ;;
(commit) short=pm:a:c: long=pause,message:,author:,change: ;;
(cp) short=L long=follow-link ;;
(diff | info | logout | pause | port | rename | top | unpause | wait) ;;
(events) short=f: long=since:,until:,filter: ;;
(exec) short=itdu: long=detach-keys:,interactive,tty,detach,user:,privileged ;;
(export | save) short=o: long=output: ;;
(history) short=Hq long=human,quiet,no-trunc ;;
(images) short=qaf: long=quiet,all,no-trunc,digests,format:,filter: ;;
(import) short=c:m: long=change:,message: ;;
(inspect) short=f:s long=format:,type:,size ;;
(kill) short=s: long=signal: ;;
(load) short=i:q long=input:,quiet ;;
(login) short=u:p:e: long=username:,password:,email: ;;
(logs) short=ft long=follow,since:,timestamps,tail: ;;
(ps) short=qsaln:f: long=quiet,size,all,no-trunc,latest,since:,before:,format:,filter: ;;
(pull) short=a long=all-tags,disable-content-trust ;;
(push) long=disable-content-trust ;;
(restart | stop) short=t: long=time: ;;
(rm) short=vlf long=volumes,link,force ;;
(rmi) short=f long=force,no-prune ;;
(run | create)
    short=Pitdh:m:u:w:c:a:v:l:e:p: long=privileged,pid:,uts:,userns:,publish-all,interactive,tty,oom-kill-disable
    long=$long,oom-score-adj:,cidfile:,entrypoint:,hostname:,memory:,memory-reservation:,memory-swap:,kernel-memory:
    long=$long,user:,workdir:,cpu-shares:,cpu-period:,cpu-quota:,cpuset-cpus:,cpuset-mems:,blkio-weight:
    long=$long,memory-swappiness:,net:,mac-address:,ip:,ip6:,ipc:,pids-limit:,restart:,read-only,log-driver:
    long=$long,cgroup-parent:,volume-driver:,stop-signal:,isolation:,shm-size:,attach:,blkio-weight-device:
    long=$long,device-read-bps:,device-write-bps:,device-read-iops:,device-write-iops:,volume:,tmpfs:,link:,net-alias:
    long=$long,device:,label:,label-file:,env:,env-file:,publish:,expose:,dns:,dns-search:,dns-opt:,add-host:
    long=$long,volumes-from:,cap-add:,cap-drop:,group-add:,security-opt:,ulimit:,log-opt:,name:,disable-content-trust
    [ "$command" = create ] || long=$long,rm,detach,sig-proxy,detach-keys:
    ;;
(search) short=s: long=no-trunc,automated,stars: ;;
(start) short=ai long=attach,interactive,detach-keys: ;;
(stats) short=a long=all,no-stream ;;
(tag) short=f long=force ;;
(update)
    short=m:c: long=blkio-weight:,cpu-period:,cpu-quota:,cpuset-cpus:,cpuset-mems:,cpu-shares:,memory:
    long=$long,memory-reservation:,memory-swap:,kernel-memory:,restart:
    ;;
(version) short=f: long=format: ;;
(network | volume) # subcommands, whose flags are left to the program
    short=- ;;
(*) refuse 1 "docker: '$command' is not a docker command." "See 'docker --help'." ;;
esac
