#!/bin/sh
# A provider of type "exec" for autocertd, which writes TXT records with BIND's nsupdate.
#
#   command = ["/usr/local/bin/exec-nsupdate.sh", "ns1.corp.example.com 53", "/etc/autocertd/tsig.key"]
#
# A request is one line of JSON with its keys in a fixed order, and nothing before "options" needs escapes: sed can read it.
server=$1 key=$2
request=$(cat)

reply() { printf '{"version":1,%s}\n' "$1"; exit 0; }
first() { printf '%s\n' "$request" | sed -n 's/^[^[]*"'"$1"'":"\([^"]*\)".*/\1/p'; } # before the records

case $request in '{"version":1,'*) ;; *) reply '"error":"this program knows version 1 alone"' ;; esac
zone=$(first zone)
case $(first action) in
append) line='update add \1.'$zone' \2 TXT "\3"' ;;
delete) line='update delete \1.'$zone' TXT "\3"' ;;
*) reply '"error":"unknown action"' ;;
esac

record='{"name":"\([^"]*\)","type":"TXT","ttl":\([0-9]*\),"value":"\([^"]*\)"}'
updates=$(printf '%s\n' "$request" | grep -o "$record" |
	sed -e "s/$record/$line/" -e 's/^\(update [a-z]* \)@\./\1/') # @ is the zone itself

said=$(printf 'server %s\nzone %s\n%s\nsend\n' "$server" "$zone" "$updates" | nsupdate -v -t 20 -k "$key" 2>&1) &&
	reply '"ok":true'
said=$(printf %s "$said" | tr -c '[:alnum:] .,:;()#-' ' ')
case $said in *Communication* | *SERVFAIL*) again=true ;; *) again=false ;; esac
reply '"error":"nsupdate says: '"$said"'","retryable":'$again
