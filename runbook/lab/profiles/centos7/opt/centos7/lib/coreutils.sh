# The options of coreutils 8.22 where Debian's 9.1 has more: getopt_long's tables in src/*.c of the tag v8.22. Each name
# here becomes a shim.
# shellcheck shell=dash disable=SC2034 # ../bin/coreutils uses them
status=1
case $me in
(comm) short=123 long=check-order,nocheck-order,output-delimiter: ;;
(cut) short=b:c:d:f:ns long=bytes:,characters:,fields:,delimiter:,only-delimited,output-delimiter:,complement ;;
(date) short=d:f:I::r:Rs:u long=date:,file:,iso-8601::,reference:,rfc-822,rfc-2822,rfc-3339:,set:,uct,utc,universal ;;
(env) status=125 short=+iu:0 long=ignore-environment,null,unset: ;;
(head) short=c:n:qv0123456789 long=bytes:,lines:,quiet,silent,verbose ;;
(ls) status=2 short=abcdfghiklmnopqrstuvw:xABCDFGHI:LNQRST:UXZ1
    long=all,escape,directory,dired,full-time,group-directories-first,human-readable,inode,kibibytes,numeric-uid-gid
    long=$long,no-group,hide-control-chars,reverse,size,width:,almost-all,ignore-backups,classify,file-type,si
    long=$long,dereference-command-line,dereference-command-line-symlink-to-dir,hide:,ignore:,indicator-style:
    long=$long,dereference,literal,quote-name,quoting-style:,recursive,format:,show-control-chars,sort:,tabsize:,time:
    long=$long,time-style:,color::,block-size:,context,author ;;
(md5sum | sha1sum | sha224sum | sha256sum | sha384sum | sha512sum)
    short=bctw long=binary,check,quiet,status,text,warn,strict,tag ;;
(numfmt) short=d: long=from:,from-unit:,to:,to-unit:,round:,padding:,suffix:,grouping,delimiter:,field:,debug,header::
    long=$long,format:,invalid: ;;
(od) short=A:aBbcDdeFfHhIij:LlN:OoS:st:vw::Xx
    long=skip-bytes:,address-radix:,read-bytes:,format:,output-duplicates,strings::,traditional,width:: ;;
(paste) short=d:s long=serial,delimiters: ;;
(split) short=0123456789C:a:b:del:n:u long=bytes:,lines:,line-bytes:,number:,elide-empty-files,unbuffered
    long=$long,suffix-length:,additional-suffix:,numeric-suffixes::,filter:,verbose ;;
(stat) short=c:fLt long=dereference,file-system,format:,printf:,terse ;;
(sync) short='' long='' ;;
(tail) short=c:n:fFqs:v0123456789
    long=bytes:,follow::,lines:,max-unchanged-stats:,pid:,quiet,retry,silent,sleep-interval:,verbose ;;
(tee) short=ai long=append,ignore-interrupts ;;
(timeout) status=125 short=+k:s: long=kill-after:,signal:,foreground,preserve-status ;;
esac
