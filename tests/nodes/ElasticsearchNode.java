// SPDX-FileCopyrightText: 2026 keytok-haystack contributors
//
// SPDX-License-Identifier: Apache-2.0

import java.lang.reflect.Method;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.elasticsearch.Build;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.http.HttpServerTransport;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginBundle;
import org.elasticsearch.plugins.PluginsLoader;
import org.elasticsearch.rest.RestController;
import org.elasticsearch.rest.RestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;

/**
 * One Elasticsearch 8.19 or 9 node in this JVM, with the modules in the folder {@code modules} of its home.
 *
 * <p>Arguments are settings, {@code name=value}. Prints {@code READY URL}, and ends when its standard input does.
 */
public class ElasticsearchNode {
    public static void main(String[] arguments) throws Exception {
        LogConfigurator.configureESLogging();
        Settings.Builder settings = Settings.builder();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Path home = Path.of(settings.get("path.home"));
        var environment = InternalSettingsPreparer.prepareEnvironment(
            settings.build(), Map.of(), home.resolve("config"), () -> "node");
        var loader = PluginsLoader.createPluginsLoader(modules(home.resolve("modules")), Set.of(), Map.of(), false);
        Node node = new Node(environment, loader);
        answerRoot(node.injector().getInstance(RestController.class));
        node.start();
        var address = node.injector().getInstance(HttpServerTransport.class).boundAddress().publishAddress();
        System.out.println("READY http://" + address.getAddress() + ":" + address.getPort());
        while (System.in.read() >= 0) {
            // the launcher writes nothing: this returns when the launcher ends, however it ends
        }
        node.close();
        System.exit(0);
    }

    /** Reads the module bundles; the method has gained a parameter between 8 and 9. */
    @SuppressWarnings("unchecked")
    private static Set<PluginBundle> modules(Path folder) throws Exception {
        Method load = Arrays.stream(PluginsLoader.class.getMethods())
            .filter(method -> method.getName().equals("loadModulesBundles"))
            .findFirst()
            .orElseThrow();
        Object bundles = load.getParameterCount() == 1 ? load.invoke(null, folder) : load.invoke(null, folder, true);
        return (Set<PluginBundle>) bundles;
    }

    /** Answers {@code GET /}, which clients ask for the version: its module is not published. */
    private static void answerRoot(RestController controller) {
        Build build = Build.current();
        String answer = """
            {"name": "node", "cluster_name": "test", "cluster_uuid": "_na_", "tagline": "You Know, for Search",
             "version": {"number": "%s", "build_flavor": "default", "build_type": "unknown", "build_hash": "%s",
                         "build_date": "%s", "build_snapshot": false, "lucene_version": "%s",
                         "minimum_wire_compatibility_version": "%s", "minimum_index_compatibility_version": "%s"}}
            """.formatted(build.version(), build.hash(), build.date(), org.apache.lucene.util.Version.LATEST,
                build.minWireCompatVersion(), build.minIndexCompatVersion());
        RestHandler handler = (request, channel, client) ->
            channel.sendResponse(new RestResponse(RestStatus.OK, "application/json", answer));
        for (RestRequest.Method method : List.of(RestRequest.Method.GET, RestRequest.Method.HEAD)) {
            controller.registerHandler(new RestHandler.Route(method, "/"), handler);
        }
    }
}
